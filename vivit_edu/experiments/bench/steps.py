"""What the benches time: passes, training steps, noise to make them on, and the matrix product that gives the peak."""

import torch
import torch.nn.functional as F

from ...cost import measure
from ...training import make_optimiser, mixed_precision
from ...volumes import Split, Volumes


def make_pass(model, clips, backward):
    """A function that passes over clips [B, C, T, H, W] as training (with gradients) or inference does."""

    def run():
        model.train(backward)
        with torch.set_grad_enabled(backward), mixed_precision(clips.device):
            logits = model(clips)
        if backward:
            logits.float().square().mean().backward()
            model.zero_grad()

    return run


def make_step(model, recipe, clips, labels, call=None):
    """A function that makes one step as `training.train_epoch` does, on a batch that is ready.

    call: what is called in the model's place: the model compiled.
    """
    optimiser, call = make_optimiser(model, recipe), model if call is None else call

    def step():
        with mixed_precision(clips.device):
            loss = F.cross_entropy(call(clips), labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()

    return step


def matmul_peak(edge, device, dtype=torch.float32, repeats=20):
    """FLOPs a second of a product of two matrices [edge, edge], the fastest of some."""
    a, b = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    return 2 * edge**3 / min(measure({"product": lambda: a @ b}, device, repeats=repeats)["product"])


def noise_volumes(train, val, clip_shape=(1, 28, 28, 28), classes=11):
    """Volumes of noise, so many to train on and to validate with: no time depends on what is in them."""
    generator = torch.Generator().manual_seed(0)

    def split(n):
        return Split(
            torch.randint(0, 256, (n, *clip_shape), generator=generator, dtype=torch.uint8), torch.arange(n) % classes
        )

    validation = split(val)
    return Volumes("noise", tuple(map(str, range(classes))), split(train), validation, validation)
