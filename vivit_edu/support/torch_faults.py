"""Workarounds for faults of torch, each with the version it was seen in and when to try without it.

The lesson files call these by one short name, so that what they teach stays in view.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.optim.swa_utils import AveragedModel


def plain_is_faster(queries: torch.Tensor) -> bool:
    """Whether two plain matrix products are faster than torch's fused attention for these queries."""
    # Seen in torch 2.15: in bfloat16 the fused kernel for CPUs takes several times as long as the plain products for
    # short sequences, and longer for up to a thousand tokens. In float32 the fused kernel is faster.
    # Try without it from torch 2.17: return False, and compare `vivit-edu bench models` in bfloat16.
    import torch

    return queries.device.type == "cpu" and queries.dtype == torch.bfloat16


def float32_on_cpu() -> AbstractContextManager:
    """Within it, a CPU computes in float32, even where autocast asks for bfloat16. For 3D convolutions."""
    # Seen in torch 2.15: in bfloat16 a third of the gradient of a 3×3×3 filter is left unwritten where the input has
    # two frames, as in the last stage of `CNN3D`; it holds whatever was in memory before.
    # Try without it from torch 2.17: return nullcontext(); tests/test_cnn.py compares the gradients.
    import torch

    return torch.autocast("cpu", enabled=False)


def readable(tensor: torch.Tensor) -> bool:
    """Whether a check may look at a tensor's values: on a CPU, not empty, and not while torch.compile traces."""
    # Seen in torch 2.15: reading a value makes a GPU wait for all work queued before, and breaks a compiled graph in
    # two; torch has no check that does neither (torch._assert_async stops the whole process, without our message).
    # Try without it once such a check exists; look again at torch 2.17.
    import torch

    return tensor.device.type == "cpu" and tensor.numel() > 0 and not torch.compiler.is_compiling()


def average_weights(averaged: AveragedModel, model: torch.nn.Module) -> None:
    """`averaged.update_parameters(model)` for a mean that does not depend on the number of steps, such as an EMA."""
    # Seen in torch 2.15: it copies that number to the weights' device in each step, and the copy waits until a GPU has
    # done all work queued before.
    # Try without it from torch 2.17: call averaged.update_parameters(model), and see in a profile whether a
    # cudaStreamSynchronize remains in each step.
    import torch

    ours, theirs = list(averaged.module.parameters()), list(model.parameters())
    on_host = ours[0].device.type == "cpu"
    if on_host or averaged.multi_avg_fn is None or averaged.use_buffers or averaged.n_averaged == 0:
        averaged.update_parameters(model)
        return
    with torch.no_grad():
        averaged.multi_avg_fn([p.detach() for p in ours], [p.detach() for p in theirs], averaged.n_averaged)
        for ours, theirs in zip(averaged.module.buffers(), model.buffers()):
            ours.copy_(theirs)
    averaged.n_averaged += 1
