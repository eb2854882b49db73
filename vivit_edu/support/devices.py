"""Which device computes, and in which precision: both are decided here and nowhere else."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from ..errors import ConfigError
from .processes import processes

CPU_INFO = Path("/proc/cpuinfo")  # Linux describes the processor there


def machine_memory() -> int | None:
    """Bytes of memory that this machine has; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def best_device() -> torch.device:
    """The device that trains fastest here: "cuda" or "mps" where there is a GPU that torch can use, else "cpu"."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_device(name: str | torch.device) -> torch.device:
    """The torch.device with this name.

    name: "auto" for `best_device()`, or "cpu", "cuda", "cuda:1", "mps".
    Raises ConfigError, which names the devices that are there, where this one is not.
    """
    if isinstance(name, str) and name == "auto":
        return best_device()
    counts = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    try:
        device = torch.device(str(name))
    except RuntimeError:  # torch knows no kind of device with this name
        device = torch.device("meta")
    if (device.index or 0) >= counts.get(device.type, 0):
        here = [kind if count == 1 else f"{kind}:{k}" for kind, count in counts.items() for k in range(count)]
        raise ConfigError(f"device {str(name)!r} is not available here: choose auto, or one of {', '.join(here)}")
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {str(name)!r} is here, but does not work ({reason}): choose cpu") from error
    return device


def describe_device(device: torch.device) -> str:
    """The kind of machine, for the record: the GPU's name or the number of CPU threads, and how many processes."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    else:
        kind = f"{device.type}, {torch.get_num_threads()} threads"
    return kind if processes() == 1 else f"{processes()} × {kind}"


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products (AVX512-BF16 or AMX); False where that is unknown."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def precision(device: torch.device, bfloat16: bool = False) -> torch.dtype:
    """The precision that a model's products are computed in on a device; weights and sums stay in float32.

    On CUDA bfloat16 where the GPU has instructions for it (Ampere and later), else float16, for which training
    scales the loss (`grad_scaler`). On a CPU bfloat16 where it is asked for. Everywhere else float32.
    bfloat16: what the recipe asks for on a CPU.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and bfloat16 else torch.float32


def mixed_precision(device: torch.device, *, on_cpu: bool = False) -> AbstractContextManager:
    """A context in which models compute in `precision(device, on_cpu)`."""
    dtype = precision(device, on_cpu)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def grad_scaler(device: torch.device, *, on_cpu: bool = False) -> torch.amp.GradScaler:
    """Keeps small gradients from vanishing in float16, by a factor on the loss; in other precisions it does nothing.

    A step whose gradients overflow is skipped, and the factor is halved.
    """
    return torch.amp.GradScaler(device.type, enabled=precision(device, on_cpu) == torch.float16)
