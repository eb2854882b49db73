"""What makes the steps of a training run: AdamW, or Muon for the encoder's matrices with AdamW for everything else.

Training takes torch's optimisers. `Muon` and `orthogonalise` are what chapter 12 teaches, in full; a test compares them
with `torch.optim.Muon`.
"""

from collections.abc import Iterable

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: singular values come out near 1, not exactly at 1


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: each step turns a matrix equally in all directions (Jordan et al. 2024).

    Equal to `torch.optim.Muon` with adjust_lr_fn="match_rms_adamw": a step is as large as one of AdamW's at the same
    lr (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2), so that both can share a schedule.
    params: matrices only. lr: the learning rate. weight_decay: the part of lr by which weights shrink in a step.
    momentum: the share of the old mean of gradients that is kept in a step, from 0 to 1.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Changes the matrices by their gradients; those without a gradient stay as they are."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                mean = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalise(matrix.grad.lerp(mean, group["momentum"]))  # Nesterov's: a look ahead
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-0.2 * max(matrix.shape) ** 0.5 * group["lr"])


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Nearly U Vᵀ of a matrix U S Vᵀ [n, m], by Newton-Schulz iterations: matrix products only, in bfloat16.

    steps: the number of iterations. Returns [n, m] in the type of the matrix.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16()
    x = x.T if matrix.shape[0] > matrix.shape[1] else x  # the products below are of the shorter side
    x = x / x.norm().clamp(min=1e-7)  # no singular value is above 1
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    return x.to(matrix.dtype)


class Together:
    """Several optimisers that step as one, each with its own groups."""

    def __init__(self, *optimisers: torch.optim.Optimizer) -> None:
        self.optimisers = optimisers

    @property
    def param_groups(self) -> list[dict]:
        """The groups of all optimisers."""
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()

    def step(self) -> None:
        """One step of each."""
        for optimiser in self.optimisers:
            optimiser.step()

    def state_dict(self) -> dict[str, dict]:
        """The state of each, by its number."""
        return {str(k): optimiser.state_dict() for k, optimiser in enumerate(self.optimisers)}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        """Takes up the state that `state_dict` returned."""
        for k, optimiser in enumerate(self.optimisers):
            optimiser.load_state_dict(state[str(k)])


def encoder_matrices(model: torch.nn.Module) -> set[str]:
    """The names of the matrices inside a ViViT's encoders, those of attention and MLP: what Muon is for."""
    return {name for name, p in model.named_parameters() if p.ndim == 2 and "encoder." in name}
