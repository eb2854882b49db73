"""What makes the steps of a training run: AdamW, or Muon for the encoder's matrices with AdamW for all else.

Chapter 12 shows Muon's step, and what it gives.
"""

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: singular values come out near 1, not at 1


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: each step turns a matrix in all directions alike (Jordan et al. 2024).

    For matrices alone. A step is as large as one of AdamW's at the same lr (Liu et al. 2025, "Muon is scalable for
    LLM training", section 2.2), so that both share a schedule. The same as torch.optim.Muon of torch 2.9 with
    adjust_lr_fn="match_rms_adamw"; a test holds them equal.
    """

    def __init__(self, params, *, lr, weight_decay=0.0, momentum=0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                mean = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalise(matrix.grad.lerp(mean, group["momentum"]))  # Nesterov's: a look ahead
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-0.2 * max(matrix.shape) ** 0.5 * group["lr"])


def orthogonalise(matrix, steps=5):
    """About U Vᵀ of a matrix U S Vᵀ [n, m], by Newton-Schulz iterations: products alone, in bfloat16."""
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
    """Several optimisers that step as one, each with groups of its own."""

    def __init__(self, *optimisers):
        self.optimisers = optimisers

    @property
    def param_groups(self):
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def zero_grad(self):
        for optimiser in self.optimisers:
            optimiser.zero_grad()

    def step(self):
        for optimiser in self.optimisers:
            optimiser.step()

    def state_dict(self):
        return {str(k): optimiser.state_dict() for k, optimiser in enumerate(self.optimisers)}

    def load_state_dict(self, state):
        for k, optimiser in enumerate(self.optimisers):
            optimiser.load_state_dict(state[str(k)])


def encoder_matrices(model):
    """The names of the matrices inside a ViViT's encoders, of attention and MLP: what Muon is for."""
    return {name for name, p in model.named_parameters() if p.ndim == 2 and "encoder." in name}
