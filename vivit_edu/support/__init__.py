"""What the lessons stand on and do not teach: files, checkpoints, processes, devices, options, faults of torch."""
