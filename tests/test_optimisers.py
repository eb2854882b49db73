"""Muon is torch's, steps beside AdamW, and is resumed with it."""

from dataclasses import replace

import pytest
import torch

from tests.tiny import tiny_recipe
from vivit_edu.errors import CheckpointError, ConfigError
from vivit_edu.optimisers import Muon, Together, encoder_matrices, orthogonalise
from vivit_edu.support.checkpoint import LATEST
from vivit_edu.training import Recipe, build_seeded, fit, make_optimiser


def test_muon_is_torchs():
    torch.manual_seed(0)
    shapes = [(6, 4), (4, 6), (5, 5)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    muon = Muon(ours, lr=0.01, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        muon.step()
        reference.step()
    for p, q in zip(ours, theirs):
        torch.testing.assert_close(p, q, atol=3e-4, rtol=1e-3)  # of bfloat16 products in another order


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_orthogonalise_makes_all_singular_values_alike(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape) @ torch.diag(torch.logspace(0, -1, shape[1]))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert 0.6 < values.min() and values.max() < 1.25
    assert torch.linalg.svdvals(matrix).max() > 3 * torch.linalg.svdvals(matrix).min()


def test_muon_gets_the_matrices_of_the_encoders_and_adamw_all_else(tiny_volumes):
    recipe = tiny_recipe(model="factorised_encoder", options={"pool": "cls"}, optimiser="muon")
    model = recipe.build(tiny_volumes)
    optimiser = make_optimiser(model, recipe)
    assert isinstance(optimiser, Together)
    muon, adamw = optimiser.optimisers
    turned = {id(p) for group in muon.param_groups for p in group["params"]}
    rest = [id(p) for group in adamw.param_groups for p in group["params"]]
    for name, p in model.named_parameters():
        matrix = "encoder" in name and name.endswith(("qkv.weight", "out.weight", "mlp.0.weight", "mlp.3.weight"))
        assert (id(p) in turned) == matrix and (id(p) in rest) != matrix, name
    assert len(turned) + len(rest) == len(list(model.parameters()))


def test_muon_is_refused_where_there_is_nothing_for_it():
    model = torch.nn.Linear(4, 4)
    assert not encoder_matrices(model)
    assert isinstance(make_optimiser(model, Recipe()), torch.optim.AdamW)
    with pytest.raises(ConfigError, match="Linear has none: choose optimiser='adamw'"):
        make_optimiser(model, Recipe(optimiser="muon"))
    for name in ("cnn3d", "late_fusion", "torchvision:r3d_18"):
        with pytest.raises(ConfigError, match=f"muon.*{name} needs 'adamw'"):
            Recipe(model=name, optimiser="muon")
    with pytest.raises(ConfigError, match="cnn3d needs 'adamw'"):
        replace(Recipe.preset("quick"), model="cnn3d", options={})


def test_training_takes_torchs_muon(tiny_volumes):
    recipe = tiny_recipe(optimiser="muon", lr=3e-3, weight_decay=0.1)
    muon, _ = make_optimiser(recipe.build(tiny_volumes), recipe).optimisers
    assert type(muon) is torch.optim.Muon
    (group,) = muon.param_groups
    assert (group["lr"], group["weight_decay"], group["adjust_lr_fn"]) == (3e-3, 0.1, "match_rms_adamw")


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("damage", ["name", "shape", "type", "group", "number"])
def test_the_state_of_another_optimiser_is_refused(tiny_volumes, tmp_path, optimiser, damage):
    recipe = tiny_recipe(epochs=2, optimiser=optimiser)
    fit(build_seeded(recipe, tiny_volumes, 0), tiny_volumes, recipe, out=tmp_path, progress=False)
    content = torch.load(tmp_path / LATEST)
    state = content["optimiser"] if optimiser == "adamw" else content["optimiser"]["0"]
    number = min(state["state"])
    name = "exp_avg" if optimiser == "adamw" else "momentum_buffer"
    tensor = state["state"][number].pop(name)
    if damage == "name":
        state["state"][number]["momentum"] = tensor
    if damage == "shape":
        state["state"][number][name] = tensor[:1]
    if damage == "type":
        state["state"][number][name] = tensor.double()
    if damage in ("group", "number"):
        state["state"][number][name] = tensor
    if damage == "group":
        del state["param_groups"][0]["weight_decay"]
    if damage == "number":
        state["state"][9999] = state["state"].pop(number)
    torch.save(content, tmp_path / LATEST)
    with pytest.raises(CheckpointError, match="another optimiser"):
        fit(build_seeded(recipe, tiny_volumes, 0), tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)


def test_a_resumed_run_with_muon_equals_an_uninterrupted_one(tiny_volumes, tmp_path):
    recipe = tiny_recipe(epochs=4, optimiser="muon", lr=5e-3)
    whole = build_seeded(recipe, tiny_volumes, 0)
    fit(whole, tiny_volumes, recipe, progress=False)

    stopped, calls = build_seeded(recipe, tiny_volumes, 0), []

    def interrupt(module, *_):
        calls.append(module.training)
        if sum(calls) > 2 * 3 + 1:
            raise KeyboardInterrupt

    stopped.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, tiny_volumes, recipe, out=tmp_path, progress=False)
    resumed = build_seeded(recipe, tiny_volumes, 1)
    fit(resumed, tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)
    for p, q in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(p, q)


def test_muon_learns_faster_than_adamw_here(tiny_volumes):
    losses = {}
    for optimiser in ("adamw", "muon"):
        recipe = tiny_recipe(epochs=8, lr=3e-3, optimiser=optimiser)
        losses[optimiser] = fit(build_seeded(recipe, tiny_volumes, 0), tiny_volumes, recipe, progress=False)["loss"][-1]
    assert losses["muon"] != losses["adamw"]


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(ConfigError, match="adamw, muon"):
        replace(Recipe(), optimiser="sgd")
