"""Muon for a GPU takes the same steps as torch's."""

import pytest
import torch

from tests.tiny import tiny_recipe
from vivit_edu.support.stacked_muon import StackedMuon
from vivit_edu.training import build_seeded, fit

SHAPES = [(6, 4), (4, 6), (5, 5), (6, 4), (8, 4), (1, 7)]  # the first, second and fourth go together


@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_its_steps_are_torchs(adjust, nesterov):
    torch.manual_seed(0)
    theirs = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    ours = [torch.nn.Parameter(p.detach().clone()) for p in theirs]
    options = {"lr": 0.01, "weight_decay": 0.1, "nesterov": nesterov, "adjust_lr_fn": adjust}
    reference, stacked = torch.optim.Muon(theirs, **options), StackedMuon(ours, **options)
    for step in range(4):
        for k, (p, q) in enumerate(zip(theirs, ours)):
            p.grad = None if k == 2 and step < 2 else torch.randn_like(p)
            q.grad = None if p.grad is None else p.grad.clone()
        kept = [None if q.grad is None else q.grad.clone() for q in ours]
        reference.step()
        stacked.step()
        assert all(q.grad is None if g is None else torch.equal(q.grad, g) for q, g in zip(ours, kept))
    for p, q in zip(theirs, ours):
        torch.testing.assert_close(q, p, atol=5e-4, rtol=1e-3)  # of bfloat16 products in another order
        mean, means = reference.state[p]["momentum_buffer"], stacked.state[q]["momentum_buffer"]
        torch.testing.assert_close(means, mean)


def test_what_it_cannot_do_is_refused():
    p = torch.nn.Parameter(torch.ones(2, 2))
    p.grad = torch.ones(2, 2)
    with pytest.raises(NotImplementedError, match="spectral"):
        StackedMuon([p], adjust_lr_fn="spectral_unclamped").step()


def test_a_run_with_it_follows_torchs_and_is_resumed(tiny_volumes, tmp_path, monkeypatch):
    recipe, losses = tiny_recipe(epochs=4, optimiser="muon", ema=0.5, lr=2e-3), []
    for kind in (torch.optim.Muon, StackedMuon):
        monkeypatch.setattr(torch.optim, "Muon", kind)
        model = build_seeded(recipe, tiny_volumes, 0)
        losses.append(fit(model, tiny_volumes, recipe, progress=False)["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.01) and losses[0] != losses[1]
    shorter = tiny_recipe(epochs=2, optimiser="muon", ema=0.5, lr=2e-3)
    fit(build_seeded(shorter, tiny_volumes, 0), tiny_volumes, shorter, out=tmp_path, progress=False)
    history = fit(model, tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)
    assert len(history) == 4
