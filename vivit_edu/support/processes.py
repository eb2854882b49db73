"""Training in several processes, on one machine or many: each takes its share of every batch.

`torchrun --nproc_per_node=N -m vivit_edu train` starts N processes that differ only in their rank. Every one
holds the whole model; torch's DistributedDataParallel averages their gradients, so that all make the same step,
the one that a single process would make on the whole batch. In a single process every function here does nothing.
Chapter 12 uses this.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ..errors import ConfigError, LostProcessError, VivitEduError


def join(device: torch.device) -> torch.device:
    """Meets the other processes if torchrun started this one; returns the device that this process computes on.

    device: "cuda" becomes the GPU of the process's rank on its machine. The processes talk by nccl between GPUs, else
    by gloo. Raises ConfigError where there are more processes than GPUs.
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


def leave() -> None:
    """Parts from the other processes, if there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return rank() == 0


def on_first(function: Callable, *arguments: object, **options: object) -> object:
    """Calls the function in the first process only; returns its result, or raises its error, in all of them."""
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


def share(batch: torch.Tensor) -> torch.Tensor:
    """This process's part of a batch [B, …], every N-th row: [B / N, …]."""
    return batch[rank() :: processes()]


def check_shares(batch_size: int) -> None:
    """Raises ConfigError where the processes cannot share a batch evenly.

    The mean of their gradients would not be the gradient of the batch.
    """
    if batch_size % processes():
        raise ConfigError(
            f"{processes()} processes cannot share batches of {batch_size} clips evenly: start a number "
            f"of processes that divides {batch_size}, or change the recipe's batch_size"
        )


def synchronised(model: nn.Module) -> nn.Module:
    """The model with its gradients averaged over all processes in each backward pass.

    BatchNorm must see the whole batch, as in a single process: its layers become SyncBatchNorm, in place, which works
    on GPUs only. Raises ConfigError for a model with BatchNorm on CPUs.
    """
    if processes() == 1:
        return model
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        if dist.get_backend() != "nccl":
            raise ConfigError(
                f"{processes()} processes cannot train this model on CPUs: each would normalise its own part of a "
                "batch (BatchNorm), and torch brings the parts together on GPUs only. Train in one process, or on GPUs"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model if isinstance(model, DistributedDataParallel) else DistributedDataParallel(model)


def mean(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes; with several of them the tensor itself is changed."""
    if processes() > 1:
        dist.all_reduce(value)
    return value / processes()


@contextmanager
def watch(out: Path | str | None) -> Iterator[None]:
    """A context in which the loss of another process, or torchrun's order to end, becomes a LostProcessError.

    out: the run folder, which the message names, or None.
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
        raise LostProcessError(f"the run was told to end, as happens when one of its processes is lost; {kept}")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise LostProcessError(f"process {rank()} of {processes()} lost another one; {kept}") from error
    finally:
        signal.signal(signal.SIGTERM, before)
