"""Runs and what is measured in them: run folders, ablations, pretraining, probes, benches."""
