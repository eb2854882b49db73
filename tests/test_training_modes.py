"""What a trained model is left as: mode, BatchNorm, wrappers; precisions; recipes for other clips and for CNNs."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu.data import Mirror, Split
from vivit_edu.embedding import token_grid
from vivit_edu.errors import CheckpointError, ConfigError
from vivit_edu.support import devices
from vivit_edu.support.checkpoint import LATEST, read_newest
from vivit_edu.support.torch_faults import average_weights
from vivit_edu.training import (
    GENTLE,
    PRESETS,
    Recipe,
    build_seeded,
    evaluate,
    fit,
    make_optimiser,
    predict_logits,
    score,
    train_epoch,
)

ROOT = Path(__file__).parents[1]


def small_cnn(dropout=0.0, seed=0):
    """Convolutions with BatchNorm, as in r3d_18, and dropout."""
    torch.manual_seed(seed)
    layers = [nn.Conv3d(1, 8, 3, 2), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 3), nn.BatchNorm3d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(8, 3))


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def interrupted(model, after):
    """The model, which stops training as Ctrl-C would in the step after so many."""
    calls = []

    def interrupt(module, *_):
        calls.append(module.training)
        if sum(calls) > after:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    return model


def test_training_loads_at_most_this_many_modules():
    """Of ours, packages included: 12 once the augmentations are one folder with three parts."""
    code = (
        "from vivit_edu.training import fit; import sys; print(*(m for m in sys.modules if m.startswith('vivit_edu')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert len(loaded.split()) <= 12, loaded
    assert "vivit_edu.models" not in loaded


# ---- mode


@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize("how", ["whole", "interrupted", "resumed", "finished"])
def test_after_fit_two_calls_on_the_same_clips_are_equal(tiny_volumes, tmp_path, ema, how):
    recipe, model = tiny_recipe(epochs=2, ema=ema), small_cnn(dropout=0.5)
    if how in ("interrupted", "resumed"):
        with pytest.raises(KeyboardInterrupt):
            fit(interrupted(model, 4), tiny_volumes, recipe, out=tmp_path, progress=False)
    else:
        fit(model, tiny_volumes, recipe, out=tmp_path, progress=False)
    if how in ("resumed", "finished"):
        model = small_cnn(dropout=0.5, seed=1)
        fit(model, tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)
    clips, before = tiny_volumes.val.clips.float() / 255, weights(model)
    model._forward_pre_hooks.clear()
    assert not any(module.training for module in model.modules())
    assert torch.equal(model(clips), model(clips)) and same(before, weights(model))
    if how != "interrupted":
        history = read_newest(tmp_path)["history"][-1]
        assert asdict(evaluate(model, tiny_volumes.val))["acc"] == history["val_acc"]


def test_evaluation_leaves_every_part_in_its_mode(tiny_volumes):
    model = small_cnn(dropout=0.5).train()
    model[1].eval()  # as where the statistics of one layer are kept
    modes, before = [module.training for module in model.modules()], weights(model)
    evaluate(model, tiny_volumes.val)
    assert [module.training for module in model.modules()] == modes and same(before, weights(model))

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_logits(model, tiny_volumes.val, predict=fail)
    assert [module.training for module in model.modules()] == modes


def test_batchnorm_has_the_statistics_of_the_averaged_weights(tiny_volumes, tmp_path):
    model, recipe = small_cnn(), tiny_recipe(epochs=2, ema=0.9, lr=0.05)
    fit(model, tiny_volumes, recipe, out=tmp_path, progress=False)
    clips = tiny_volumes.train.clips.float() / 255
    with torch.no_grad():
        first = model[0](clips)  # what the first BatchNorm sees with the weights that are kept
        second = model[3](model[2](model[1](first)))
    for norm, seen in ((model[1], first), (model[4], second)):
        torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3, 4)), atol=0.02, rtol=0.05)
        torch.testing.assert_close(norm.running_var, seen.var((0, 2, 3, 4)), atol=0.02, rtol=0.1)
    raw = read_newest(tmp_path)["model"]
    assert not torch.equal(raw["1.running_mean"], model[1].running_mean)


def test_a_resumed_run_with_batchnorm_equals_an_uninterrupted_one(tiny_volumes, tmp_path):
    recipe = tiny_recipe(epochs=4, ema=0.5)
    whole = small_cnn(dropout=0.2)
    history = fit(whole, tiny_volumes, recipe, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(interrupted(small_cnn(dropout=0.2), 7), tiny_volumes, recipe, out=tmp_path, progress=False)
    resumed = small_cnn(dropout=0.2, seed=1)
    joined = fit(resumed, tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)
    assert same(weights(whole), weights(resumed)) and joined["loss"] == history["loss"]


# ---- wrappers

WRAPPERS = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "both": lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
}


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_checkpoint_of_a_wrapped_model_is_the_plain_models(tiny_volumes, tmp_path, wrap, ema):
    recipe = tiny_recipe(epochs=2, ema=ema, optimiser="muon")
    plain, inner = build_seeded(recipe, tiny_volumes, 0), build_seeded(recipe, tiny_volumes, 0)
    fit(plain, tiny_volumes, recipe, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(WRAPPERS[wrap](interrupted(inner, 4)), tiny_volumes, recipe, out=tmp_path, progress=False)
    assert set(read_newest(tmp_path)["model"]) == set(plain.state_dict())
    resumed = build_seeded(recipe, tiny_volumes, 1)
    fit(resumed, tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain.parameters(), resumed.parameters()))
    wrapped = WRAPPERS[wrap](build_seeded(recipe, tiny_volumes, 2))  # and the wrapped one the plain one's
    fit(wrapped, tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), wrapped.parameters()))


def test_a_checkpoint_with_a_wrappers_names_is_read(tiny_volumes, tmp_path):
    """As versions before this one wrote it for a compiled model."""
    recipe = tiny_recipe(epochs=1, ema=0.5)
    model = build_seeded(recipe, tiny_volumes, 0)
    fit(model, tiny_volumes, recipe, out=tmp_path, progress=False)
    content = torch.load(tmp_path / LATEST)
    content["model"] = {f"_orig_mod.{name}": value for name, value in content["model"].items()}
    content["averaged"] = {
        name.replace("module.", "module._orig_mod."): value for name, value in content["averaged"].items()
    }
    del content["scaler"]
    torch.save(content, tmp_path / LATEST)
    again = build_seeded(recipe, tiny_volumes, 1)
    fit(again, tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)
    assert same(weights(model), weights(again))


# ---- precision


@pytest.mark.parametrize(
    "dtype, optimiser", [(torch.float16, "adamw"), (torch.float16, "muon"), (torch.bfloat16, "adamw")]
)
def test_loss_curves_of_half_precisions_follow_float32s(tiny_volumes, monkeypatch, dtype, optimiser):
    recipe, losses = tiny_recipe(epochs=6, lr=2e-3, ema=0.5, optimiser=optimiser), []
    for precision in (torch.float32, dtype):
        monkeypatch.setattr(devices, "precision", lambda *_, precision=precision: precision)
        model = build_seeded(recipe, tiny_volumes, 0)
        losses.append(fit(model, tiny_volumes, recipe, progress=False)["loss"])
        assert next(model.parameters()).dtype == torch.float32
    assert losses[0] != losses[1] and losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


class NeverUnscales(torch.amp.GradScaler):
    def unscale_(self, optimiser):
        pass  # so that clipping sees gradients that are thousands of times as long


class NeverScales(torch.amp.GradScaler):
    def scale(self, loss):
        super().scale(loss)
        return loss  # so that small gradients vanish, and all of them are divided by the scale afterwards


def stepped_gradients(volumes, monkeypatch, dtype, scaler=None):
    """The gradients that the optimiser sees in one step, of a model whose gradients are too small for float16."""
    recipe, seen = tiny_recipe(batch_size=48), []
    model = build_seeded(recipe, volumes, 0)
    model.register_forward_hook(lambda module, clips, logits: logits * 1e-6)
    optimiser = make_optimiser(model, recipe)
    optimiser.register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in model.parameters()))
    monkeypatch.setattr(devices, "precision", lambda *_: dtype)
    train_epoch(model, volumes.train, volumes, recipe, optimiser, None, seed=0, epoch=0, scaler=scaler)
    return torch.cat([grad.flatten() for grad in seen])


def test_small_gradients_survive_float16_and_a_wrong_scaler_loses_them(tiny_volumes, monkeypatch):
    exact = stepped_gradients(tiny_volumes, monkeypatch, torch.float32)

    def error(scaler):
        found = stepped_gradients(tiny_volumes, monkeypatch, torch.float16, scaler)
        return float((found - exact).norm() / exact.norm())

    assert error(torch.amp.GradScaler("cpu")) < 0.02
    assert error(torch.amp.GradScaler("cpu", enabled=False)) > 0.2
    assert error(NeverUnscales("cpu")) > 0.2
    assert error(NeverScales("cpu")) > 0.2


def epoch_on_meta():
    """One epoch of each optimiser on torch's "meta" device, where tensors have no values: to look at one, as .item(),
    nonzero and masks do, is an error. Where a GPU computes, each such look would wait for all work queued before."""
    adamw = torch.optim.AdamW
    torch.optim.AdamW = lambda *args, fused, **rest: adamw(*args, **rest)  # fused steps are not written for "meta"
    volumes = make_tiny_volumes()
    scaler = torch.amp.GradScaler("cpu", enabled=False)  # as in bfloat16 and float32
    augmentation = PRESETS["full"]["augmentation"]
    everything = replace(
        augmentation, roll=True, gain=0.1, noise=0.1, blur=0.5, erase=0.2, gamma=0.1, mixup=0.1, cutmix=0.1
    )
    for optimiser, chosen in (("muon", augmentation), ("adamw", replace(everything, rand_layers=2, rand_magnitude=5))):
        recipe = tiny_recipe(optimiser=optimiser, ema=0.9, augmentation=chosen, model="factorised_encoder")
        model = build_seeded(recipe, volumes, 0).to("meta")
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
        on_meta = replace(volumes, train=volumes.train.to("meta"), mirror=Mirror(3, (1, 0, 2)))
        parts = (model, on_meta.train, on_meta, recipe, make_optimiser(model, recipe), averaged)
        with pytest.raises(RuntimeError, match="item"):  # the one look, at the epoch's loss, when all steps are made
            train_epoch(*parts, seed=0, epoch=0, scaler=scaler)
        assert averaged.n_averaged == 3


def test_nothing_in_an_epoch_waits_for_the_device():
    """In a process of its own: a backward pass on "meta" starts a thread that children made by fork would miss."""
    code = f"from {__name__} import epoch_on_meta; epoch_on_meta()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_weights_are_averaged_without_a_copy_of_the_count(monkeypatch):
    """As torch's own average, on a device that is not the CPU; "meta" shows that the count is not moved there."""
    models = [small_cnn(seed=seed) for seed in range(3)]
    theirs, ours = (AveragedModel(models[0], multi_avg_fn=get_ema_multi_avg_fn(0.9)) for _ in range(2))
    for model in models:
        theirs.update_parameters(model)
        average_weights(ours, model)
    assert same(weights(theirs), weights(ours)) and ours.n_averaged == 3

    class Elsewhere(torch.Tensor):  # a parameter that says it is on a GPU
        device = property(lambda self: torch.device("cuda"))

    by_hand = AveragedModel(models[0], multi_avg_fn=get_ema_multi_avg_fn(0.9))
    by_hand.update_parameters(models[0])
    monkeypatch.setattr(AveragedModel, "update_parameters", None)
    first = next(iter(by_hand.module._modules["0"]._parameters))
    held = by_hand.module._modules["0"]._parameters[first]
    by_hand.module._modules["0"]._parameters[first] = held.as_subclass(Elsewhere)
    for model in models[1:]:
        average_weights(by_hand, model)
    by_hand.module._modules["0"]._parameters[first] = held
    assert same(weights(theirs), weights(by_hand)) and by_hand.n_averaged == 3


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_step_whose_gradients_overflow_is_skipped(tiny_volumes, monkeypatch, optimiser):
    monkeypatch.setattr(devices, "precision", lambda *_: torch.float16)
    recipe = tiny_recipe(optimiser=optimiser, ema=0.5)
    model = build_seeded(recipe, tiny_volumes, 0)
    averaged = AveragedModel(model)
    scaler, before = torch.amp.GradScaler("cpu", init_scale=2.0**60), weights(model)
    arguments = (model, tiny_volumes.train, tiny_volumes, recipe, make_optimiser(model, recipe), averaged)
    loss = train_epoch(*arguments, seed=0, epoch=0, scaler=scaler)
    assert 0.5 < loss < 3 and same(before, weights(model)) and averaged.n_averaged == 0
    assert scaler.get_scale() == 2.0**57  # halved in each of three steps
    scaler.update(2.0**10)
    loss = train_epoch(*arguments, seed=0, epoch=0, scaler=scaler)
    assert 0.5 < loss < 3 and not same(before, weights(model)) and averaged.n_averaged == 3


def test_a_loss_that_overflows_with_its_step_does_not_count(tiny_volumes, monkeypatch):
    monkeypatch.setattr(devices, "precision", lambda *_: torch.float16)
    recipe, model, seen = tiny_recipe(), small_cnn(), []
    optimiser = make_optimiser(model, recipe)

    def overflow(module, _, logits):
        seen.append(1)
        return logits * float("inf") if len(seen) in overflowing else logits

    model.register_forward_hook(overflow)
    arguments = (model, tiny_volumes.train, tiny_volumes, recipe, optimiser, None)
    overflowing = {2}
    assert 0.5 < train_epoch(*arguments, seed=0, epoch=0, scaler=torch.amp.GradScaler("cpu")) < 3
    overflowing, seen[:] = {1, 2, 3}, []
    assert not train_epoch(*arguments, seed=0, epoch=1, scaler=torch.amp.GradScaler("cpu")) < 3  # nothing is left


def test_a_resumed_run_in_float16_equals_an_uninterrupted_one(tiny_volumes, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "precision", lambda *_: torch.float16)
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda kind, **options: scaler(kind, init_scale=2.0**19, growth_interval=99, **options)
    )
    recipe = tiny_recipe(epochs=4, ema=0.5)
    whole = build_seeded(recipe, tiny_volumes, 0)
    history = fit(whole, tiny_volumes, recipe, progress=False)
    with pytest.raises(KeyboardInterrupt):
        stopped = interrupted(build_seeded(recipe, tiny_volumes, 0), 7)
        fit(stopped, tiny_volumes, recipe, out=tmp_path, progress=False)
    kept = read_newest(tmp_path)["scaler"]
    assert kept["scale"] != 2.0**19 and kept["_growth_tracker"] != 0
    resumed = build_seeded(recipe, tiny_volumes, 1)
    joined = fit(resumed, tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)
    assert same(weights(whole), weights(resumed)) and joined["loss"] == history["loss"]
    content = torch.load(tmp_path / LATEST)
    content["scaler"] = {"scale": "large"}
    torch.save(content, tmp_path / LATEST)
    with pytest.raises(CheckpointError, match="loss scaler"):
        fit(resumed, tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)


# ---- metrics


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_labels_of_one_class_have_no_auc(classes):
    found = score(torch.randn(6, classes), torch.zeros(6, dtype=torch.long))
    assert found.auc is None and json.loads(json.dumps(asdict(found), allow_nan=False))["auc"] is None


def test_a_validation_split_of_one_class_is_trained_with(tiny_volumes, tmp_path):
    keep = tiny_volumes.val.labels == 1
    val = Split(tiny_volumes.val.clips[keep], tiny_volumes.val.labels[keep])
    recipe, volumes = tiny_recipe(epochs=2), replace(tiny_volumes, val=val)
    history = fit(build_seeded(recipe, volumes, 0), volumes, recipe, out=tmp_path, progress=True)
    assert history["val_auc"] == [None, None]
    json.dumps(history.rows, allow_nan=False)
    model = build_seeded(recipe, volumes, 0)
    assert len(fit(model, volumes, recipe, out=tmp_path, resume=True, progress=False)) == 2


def test_an_empty_split_is_told():
    with pytest.raises(ConfigError, match="the split is empty"):
        score(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


# ---- recipes


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("model", ["cnn3d", "slow_fusion", "torchvision:r3d_18"])
def test_a_cnn_takes_nothing_that_was_chosen_for_a_vivit(name, model):
    recipe = Recipe.preset(name, model=model)
    assert (recipe.optimiser, recipe.lr, recipe.weight_decay, recipe.options) == ("adamw", 5e-4, 0.05, {})
    assert recipe.augmentation == GENTLE
    assert (recipe.epochs, recipe.batch_size) == (Recipe.preset(name).epochs, Recipe.preset(name).batch_size)
    assert Recipe.preset(name, model=model, weight_decay=0.3).weight_decay == 0.3


def test_a_preset_cannot_be_changed_through_a_recipe():
    Recipe.preset("full").options["depth"] = 99
    assert Recipe.preset("full").options["depth"] == 3 and Recipe.preset("full").weight_decay == 0.5


@pytest.mark.parametrize("model", ["spacetime", "factorised_self_attention", "factorised_dot_product"])
def test_temporal_depth_is_refused_where_nothing_reads_it(model):
    with pytest.raises(ConfigError, match=f"{model} has no option temporal_depth"):
        Recipe(model=model, options={"temporal_depth": 2})
    with pytest.raises(ConfigError, match="temporal_depth"):
        Recipe.preset("full", model=model, options={"temporal_depth": 2})
    options = Recipe.preset("full").options
    assert Recipe.preset("full", model=model).options == {k: v for k, v in options.items() if k != "temporal_depth"}
    Recipe(model="factorised_encoder", options={"temporal_depth": 2})


@pytest.mark.parametrize(
    "clip, tubelet, remainder",
    [
        ((28, 28, 28), (7, 7, 7), None),
        ((64, 64, 64), (8, 8, 8), None),
        ((16, 64, 64), (8, 8, 8), None),
        ((32, 112, 112), (8, 7, 7), None),
        ((30, 30, 30), (6, 6, 6), None),
        ((29, 64, 64), (7, 8, 8), "pad"),  # primes: neither 1 nor the whole axis
        ((31, 28, 28), (7, 7, 7), "pad"),
        ((26, 28, 28), (13, 7, 7), None),
        ((3, 28, 28), (3, 7, 7), None),
        ((1, 28, 28), (1, 7, 7), None),
    ],
)
def test_quick_is_fitted_to_clips(clip, tubelet, remainder):
    recipe, remark = Recipe.preset("quick").fitted((1, *clip))
    found = recipe.options.get("tubelet", (7, 7, 7))
    assert found == tubelet and recipe.options.get("remainder") == remainder
    if tubelet == (7, 7, 7) and remainder is None:
        assert remark is None and recipe == Recipe.preset("quick")
    else:
        assert "\n" not in remark and "×".join(map(str, tubelet)) in remark and ("pad" in remark) == bool(remainder)


@pytest.mark.parametrize("preset", ["quick", "full", "paper-b"])
def test_fitted_recipes_tile_every_clip_at_a_sensible_cost(preset):
    recipe = Recipe.preset(preset)
    before = recipe.options.get("tubelet", (7, 7, 7))
    for size in range(1, 130):
        fitted, _ = recipe.fitted((1, size, size, size))
        tubelet = fitted.options.get("tubelet", (7, 7, 7))
        grid = token_grid((size,) * 3, tubelet, fitted.options.get("remainder", "refuse"))
        for tokens, step, now in zip(grid, before, tubelet):
            assert tokens <= 1.5 * size / step + 1 and now <= 2 * step
            if size % step == 0:
                assert now == step
        assert fitted.fitted((1, size, size, size)) == (fitted, None)


def test_the_smaller_of_two_equally_near_sizes_is_taken():
    recipe, _ = Recipe.preset("full").fitted((1, 30, 30, 30))  # 3 and 5 are as near to 4
    assert recipe.options["tubelet"] == (3, 3, 3)


def test_what_the_recipe_says_of_the_remainder_stays():
    recipe = Recipe(options={"tubelet": (9, 4, 4), "remainder": "crop"})
    assert recipe.fitted((1, 10, 10, 10)) == (recipe, None)
    small, remark = recipe.fitted((1, 8, 10, 10))  # no tubelet is longer than the clip
    assert small.options == {"tubelet": (8, 4, 4), "remainder": "crop"} and "8×4×4 in place of 9×4×4" in remark
    assert Recipe(model="cnn3d").fitted((1, 31, 31, 31)) == (Recipe(model="cnn3d"), None)
    with pytest.raises(ConfigError, match="clip_shape"):
        recipe.fitted((28, 28, 28))
