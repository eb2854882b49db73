"""Models inside wrappers: torch.compile, data parallelism, averaged weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The plain model inside what torch.compile, (Distributed)DataParallel and AveragedModel make of it.

    Wrappers may be nested. The plain model shares its parameters with the wrapper: for an AveragedModel these are the
    averaged weights. A model that is not wrapped is returned as it is.
    """
    from torch.nn.parallel import DataParallel, DistributedDataParallel
    from torch.optim.swa_utils import AveragedModel

    while True:
        if "_orig_mod" in getattr(model, "_modules", ()):  # torch.compile's OptimizedModule, whose class is private
            model = model._orig_mod
        elif isinstance(model, (DataParallel, DistributedDataParallel, AveragedModel)):
            model = model.module
        else:
            return model


def uncompiled(model: nn.Module) -> AbstractContextManager:
    """Within it, compiled parts of the model run as plain PyTorch, so that what happens inside them can be recorded."""
    import torch

    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
