"""Training in several processes, on one machine or many: each takes its share of every batch.

`torchrun --nproc_per_node=N -m vivit_edu train` starts N processes that differ in their rank alone. Every one
holds the whole model; torch's DistributedDataParallel averages their gradients, so that all make the same step,
the one that a single process would make on the whole batch. In a single process every function here is a no-op.
Chapter 12 uses this.
"""

import os
import signal
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ..errors import ConfigError, LostProcessError, VivitEduError


def join(device):
    """Meets the other processes where torchrun started this one; returns the device that is this process's own.

    "cuda" becomes the GPU of the process's rank on its machine. They talk by nccl between GPUs, else by gloo.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return device
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"there are {torch.cuda.device_count()} GPUs here for {os.environ['LOCAL_WORLD_SIZE']} "
                "processes: give torchrun --nproc_per_node as many as there are GPUs, or --device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def leave():
    if dist.is_initialized():
        dist.destroy_process_group()


def processes():
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first():
    """Whether this is the process that writes files and shows progress."""
    return rank() == 0


def on_first(function, *arguments, **options):
    """function(…) in the first process alone; what it returns, or the error it raises, in all of them."""
    if processes() == 1:
        return function(*arguments, **options)
    outcome = [None, None]
    if is_first():
        try:
            outcome[0] = function(*arguments, **options)
        except VivitEduError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    result, error = outcome
    if error is not None:
        raise error
    return result


def share(batch):
    """This process's part of a batch [B, …], every N-th row: [B / N, …]."""
    return batch[rank() :: processes()]


def check_shares(batch_size):
    """Refuses a batch that the processes cannot share evenly: the mean of their gradients would not be its gradient."""
    if batch_size % processes():
        raise ConfigError(
            f"{processes()} processes cannot share batches of {batch_size} clips evenly: start a number "
            f"of processes that divides {batch_size}, or change the recipe's batch_size"
        )


def synchronised(model):
    """The model with its gradients averaged over all processes in each backward pass."""
    return DistributedDataParallel(model) if processes() > 1 else model


def mean(value):
    """The mean of a tensor over all processes."""
    if processes() > 1:
        dist.all_reduce(value)
    return value / processes()


@contextmanager
def watch(out):
    """Within it, the loss of another process, or torchrun's order to end, becomes a LostProcessError.

    out: the run folder, named in the message, or None.
    """
    if processes() == 1:
        yield
        return
    kept = (
        f"finished epochs are kept: go on, with any number of processes, by --resume --out {out}"
        if out
        else "nothing was kept"
    )

    def end(*_):
        raise LostProcessError(f"the run was told to end, as when one of its processes is lost; {kept}")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise LostProcessError(f"process {rank()} of {processes()} lost another one; {kept}") from error
    finally:
        signal.signal(signal.SIGTERM, before)
