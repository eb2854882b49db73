"""Muon for a GPU: matrices of one shape are orthogonalised together.

A step of `torch.optim.Muon` makes some twenty-three small operations for each matrix. On a GPU starting one takes
longer than computing it. For the twenty matrices of the preset full torch's step makes 462 operations and this one
71. What that gains on a GPU has not been measured yet.
"""

from __future__ import annotations

import torch


class StackedMuon(torch.optim.Muon):
    """`torch.optim.Muon` with its arguments, state and results; only the order of the work is another.

    Matrices of one shape, and their transposes, are stacked to [M, n, m] and go through each Newton-Schulz iteration as
    one batch of products. Equal to torch's up to the rounding of bfloat16, in which both compute the iterations.
    """

    @torch.no_grad()
    def step(self) -> None:
        """Changes the matrices by their gradients; those without a gradient stay as they are."""
        for group in self.param_groups:
            matrices = [p for p in group["params"] if p.grad is not None]
            if not matrices:
                continue
            gradients, momentum = [p.grad for p in matrices], group["momentum"]
            means = [self._mean(p) for p in matrices]
            torch._foreach_lerp_(means, gradients, 1 - momentum)
            updates = torch._foreach_lerp(gradients, means, momentum) if group["nesterov"] else means
            updates = orthogonalised(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_mul_(updates, [-group["lr"] * length(p, group["adjust_lr_fn"]) for p in matrices])
            torch._foreach_add_(matrices, updates)

    def _mean(self, matrix: torch.Tensor) -> torch.Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix, memory_format=torch.preserve_format)
        return state["momentum_buffer"]


def orthogonalised(
    matrices: list[torch.Tensor], coefficients: tuple[float, float, float], steps: int, eps: float
) -> list[torch.Tensor]:
    """Each matrix [n, m] made nearly orthogonal by Newton-Schulz iterations in bfloat16, as torch.optim.Muon does."""
    a, b, c = coefficients
    wide = [x.mT if x.shape[0] > x.shape[1] else x for x in matrices]  # the products are of the shorter side
    found: list[torch.Tensor] = [torch.empty(0)] * len(matrices)
    for shape in {x.shape for x in wide}:
        places = [i for i, x in enumerate(wide) if x.shape == shape]
        x = torch.stack([wide[i] for i in places]).bfloat16()  # [M, n, m]
        x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=eps)  # no singular value is above 1
        for _ in range(steps):
            gram = x @ x.mT  # [M, n, n]
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        for i, result in zip(places, x.to(matrices[0].dtype)):
            found[i] = result.mT if matrices[i].shape[0] > matrices[i].shape[1] else result
    return found


def length(matrix: torch.Tensor, adjust: str | None) -> float:
    """By how much the learning rate is multiplied for a matrix of this shape: torch.optim.Muon's `adjust_lr_fn`."""
    rows, columns = matrix.shape
    if adjust == "match_rms_adamw":
        return 0.2 * max(rows, columns) ** 0.5
    if adjust in (None, "original"):
        return max(1, rows / columns) ** 0.5
    raise NotImplementedError(f"adjust_lr_fn={adjust!r}")
