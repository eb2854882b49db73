"""Training does what it says, gives the same numbers again, and survives being stopped anywhere."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import tiny_recipe
from vivit_edu.augment import Augmentation
from vivit_edu.errors import CheckpointError, ConfigError, TrainingError
from vivit_edu.support.checkpoint import LATEST, PREVIOUS, read_newest
from vivit_edu.training import (
    Recipe,
    build_seeded,
    fit,
    learning_rate,
    make_optimiser,
    predict_logits,
    score,
    train_epoch,
)


def trained(volumes, recipe, seed=0, **options):
    model = build_seeded(recipe, volumes, seed)
    return model, fit(model, volumes, recipe, seed=seed, progress=False, **options)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# ---- metrics


@pytest.mark.parametrize("classes, task", [(2, "binary-class"), (5, "multi-class")])
def test_accuracy_and_auc_are_medmnists(classes, task):
    from medmnist.evaluator import getACC, getAUC

    torch.manual_seed(0)
    labels = torch.arange(60) % classes
    logits = torch.randn(60, classes) + F.one_hot(labels, classes)
    found, probabilities = score(logits, labels), logits.softmax(dim=1).numpy()
    assert found.acc == pytest.approx(getACC(labels.numpy()[:, None], probabilities, task))
    assert found.auc == pytest.approx(getAUC(labels.numpy()[:, None], probabilities, task))


def test_the_auc_of_very_sure_answers_is_that_of_their_order():
    """Probabilities that round to 1 or 0 would all be equal."""
    labels = torch.tensor([0, 0, 1, 1, 0, 1])
    lead = torch.tensor([-900.0, -800.0, 800.0, 900.0, 850.0, 700.0])
    order = score(torch.stack((torch.zeros(6), lead / 1000), dim=1), labels)
    sure = score(torch.stack((torch.zeros(6), lead), dim=1), labels)
    assert sure.auc == order.auc == pytest.approx(7 / 9)
    three = torch.stack((torch.zeros(6), lead, torch.full((6,), -5.0)), dim=1)
    assert score(three, labels).auc == score(three / 1000, labels).auc


def test_balanced_accuracy_counts_every_class_alike():
    labels = torch.tensor([0] * 9 + [1])
    always_first = torch.tensor([[1.0, 0.0]]).repeat(10, 1)
    found = score(always_first, labels)
    assert found.acc == pytest.approx(0.9) and found.balanced_acc == pytest.approx(0.5) and found.auc == 0.5


def test_a_class_that_is_missing_leaves_the_auc_of_the_others():
    logits = torch.eye(4)[torch.tensor([0, 1, 2, 0, 1, 2])]
    assert score(logits, torch.tensor([0, 1, 2, 0, 1, 2])).auc == 1


# ---- the loop


def test_fit_learns_and_leaves_the_test_split_alone(tiny_volumes):
    _, history = trained(replace(tiny_volumes, test=None), tiny_recipe(epochs=20, lr=5e-3))
    assert history["val_acc"][-1] >= 0.9
    assert history["loss"][-1] < history["loss"][0] / 2


def test_the_loss_is_cross_entropy_of_the_logits_not_of_probabilities(tiny_volumes):
    recipe = tiny_recipe(batch_size=48, augmentation=Augmentation(), lr=1e-9)
    model = build_seeded(recipe, tiny_volumes, 0)
    torch.nn.init.normal_(model.head.weight, std=2)  # far from uniform, where a second softmax would show
    expected = F.cross_entropy(predict_logits(model, tiny_volumes.train), tiny_volumes.train.labels)
    optimiser = make_optimiser(model, recipe)
    loss = train_epoch(model, tiny_volumes.train, tiny_volumes, recipe, optimiser, None, seed=0, epoch=0)
    assert loss == pytest.approx(expected.item(), abs=1e-4)


def test_learning_rate_warms_up_and_ends_at_nothing():
    recipe = Recipe(lr=1.0, warmup=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[0] < 0.1 and max(rates) == pytest.approx(1, abs=0.01) and rates.index(max(rates)) == 10
    assert rates[-1] < 0.001 and sorted(rates[10:], reverse=True) == rates[10:]
    assert rates[55] == pytest.approx(0.5, abs=0.01)  # halfway down the cosine


def test_weight_decay_spares_biases_norms_positions_and_cls(tiny_volumes):
    recipe = tiny_recipe(model="factorised_encoder", options={"pool": "cls"})
    model = recipe.build(tiny_volumes)
    decayed, rest = ({id(p) for p in group["params"]} for group in make_optimiser(model, recipe).param_groups)
    for name, parameter in model.named_parameters():
        spared = name.endswith(("bias", "positions", "cls")) or "norm" in name
        assert id(parameter) in (rest if spared else decayed), name


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tiny_volumes):
    recipe = tiny_recipe(options={"dropout": 0.1, "drop_path": 0.2})
    (first, _), (again, _), (other, _) = (trained(tiny_volumes, recipe, seed) for seed in (3, 3, 4))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_training_leaves_torchs_generator_as_it_was(tiny_volumes):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(tiny_volumes, tiny_recipe(epochs=1, options={"dropout": 0.1}))
    assert torch.equal(torch.rand(3), expected)


def test_bfloat16_steps_differ_a_little_and_keep_float32_weights(tiny_volumes):
    (exact, _), (rounded, _) = (trained(tiny_volumes, tiny_recipe(bfloat16=on)) for on in (False, True))
    assert weights(rounded).dtype == torch.float32 and not torch.equal(weights(exact), weights(rounded))
    torch.testing.assert_close(weights(rounded), weights(exact), atol=0.01, rtol=0.1)


def test_averaged_weights_are_what_is_kept(tiny_volumes, tmp_path):
    model, _ = trained(tiny_volumes, tiny_recipe(ema=0.9), out=tmp_path)
    content = read_newest(tmp_path)
    kept, raw = content["averaged"]["module.head.weight"], content["model"]["head.weight"]
    assert torch.equal(model.head.weight, kept) and not torch.equal(kept, raw)


def test_every_epoch_sees_another_order_and_whole_batches(tiny_volumes):
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, clips):
            if self.training:
                seen.append(clips.mean(dim=(1, 2, 3, 4)))
            return self.scale * torch.ones(len(clips), 3)

    recipe = tiny_recipe(epochs=2, batch_size=20, augmentation=Augmentation())
    fit(Spy(), tiny_volumes, recipe, progress=False)
    assert [len(batch) for batch in seen] == [20, 20, 20, 20]
    assert not torch.equal(seen[0], seen[2])


# ---- being stopped


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tiny_volumes, tmp_path):
    recipe = tiny_recipe(epochs=4)
    model = build_seeded(recipe, tiny_volumes, 0)
    fit(model, tiny_volumes, replace(recipe, epochs=4), out=tmp_path, progress=False)
    before = (tmp_path / LATEST).read_bytes()
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(TrainingError, match="nan.*lower lr"):
        fit(model, tiny_volumes, recipe, out=tmp_path, progress=False)
    assert (tmp_path / LATEST).read_bytes() == before


def test_weights_that_are_no_numbers_stop_the_run_before_they_are_kept(tiny_volumes, tmp_path):
    with pytest.raises(TrainingError, match="logits are not all finite.*lower lr"):  # the epoch's own loss was finite
        trained(tiny_volumes, tiny_recipe(lr=1e30, batch_size=48), out=tmp_path)
    assert not (tmp_path / LATEST).exists()


def test_a_resumed_run_equals_an_uninterrupted_one(tiny_volumes, tmp_path):
    recipe = tiny_recipe(epochs=5, ema=0.9, options={"dropout": 0.1})
    whole, history = trained(tiny_volumes, recipe)

    def stop_after(epochs):  # as Ctrl-C would, in the middle of the epoch after
        model, calls = build_seeded(recipe, tiny_volumes, 0), 0

        def interrupt(module, *_):
            nonlocal calls
            calls += module.training
            if calls > epochs * 3 + 1:
                raise KeyboardInterrupt

        model.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(model, tiny_volumes, recipe, out=tmp_path, resume=True, progress=False)

    stop_after(2)
    assert read_newest(tmp_path)["epochs_done"] == 2
    resumed, joined = trained(tiny_volumes, recipe, out=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    for column in ("epoch", "loss", "lr", "val_acc", "val_auc"):
        assert joined[column] == history[column]


KILLED = """
import sys
from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu.training import build_seeded
from vivit_edu.training import fit
recipe, volumes = tiny_recipe(epochs=20), make_tiny_volumes()
fit(build_seeded(recipe, volumes, 0), volumes, recipe, out=sys.argv[1], resume=True, progress=False)
"""


def test_a_run_that_is_killed_goes_on_in_the_same_numbers(tiny_volumes, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path(__file__).parents[1])
    deadline = time.monotonic() + 120
    while not (tmp_path / PREVIOUS).exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()
    done = read_newest(tmp_path)["epochs_done"]
    assert 0 < done < 20
    recipe = tiny_recipe(epochs=20)
    resumed, joined = trained(tiny_volumes, recipe, out=tmp_path, resume=True)
    whole, history = trained(tiny_volumes, recipe)
    assert torch.equal(weights(whole), weights(resumed))
    assert joined["loss"] == history["loss"]


# ---- checkpoints


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tiny_volumes, tmp_path, capsys):
    recipe = tiny_recipe()
    whole, _ = trained(tiny_volumes, recipe, out=tmp_path)
    (tmp_path / LATEST).write_bytes((tmp_path / LATEST).read_bytes()[:1000])
    resumed, _ = trained(tiny_volumes, recipe, out=tmp_path, resume=True)
    assert "damaged" in capsys.readouterr().out
    assert torch.equal(weights(whole), weights(resumed))


def test_no_readable_checkpoint_is_an_error_not_a_new_start(tiny_volumes, tmp_path):
    trained(tiny_volumes, tiny_recipe(), out=tmp_path)
    for name in (LATEST, PREVIOUS):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no checkpoint.*can be read"):
        trained(tiny_volumes, tiny_recipe(), out=tmp_path, resume=True)


@pytest.mark.parametrize(
    "change, names",
    [({"lr": 1e-3}, "lr was 0.0005, now 0.001"), ({"epochs": 2}, "has done 3 epochs, asked for were 2")],
)
def test_a_checkpoint_of_another_recipe_is_refused(tiny_volumes, tmp_path, change, names):
    trained(tiny_volumes, tiny_recipe(), out=tmp_path)
    with pytest.raises(CheckpointError, match=names):
        trained(tiny_volumes, tiny_recipe(**change), out=tmp_path, resume=True)


def test_a_checkpoint_of_another_seed_is_refused(tiny_volumes, tmp_path):
    trained(tiny_volumes, tiny_recipe(), out=tmp_path)
    with pytest.raises(CheckpointError, match="seed: 0, now 1"):
        trained(tiny_volumes, tiny_recipe(), seed=1, out=tmp_path, resume=True)


def test_a_full_disk_keeps_the_earlier_checkpoint(tiny_volumes, tmp_path, monkeypatch):
    recipe, saves, save = tiny_recipe(), [], torch.save

    def fill_up(content, file):
        saves.append(1)
        if len(saves) == 3:
            file.write(b"half a file")
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", fill_up)
    with pytest.raises(CheckpointError, match="make room"):
        trained(tiny_volumes, recipe, out=tmp_path)
    assert read_newest(tmp_path)["epochs_done"] == 2
    assert not list(tmp_path.glob(".*.part"))


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_checkpoint_never_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"epochs_done": Evil()}, tmp_path / LATEST)
    with pytest.raises(CheckpointError):
        read_newest(tmp_path)
    assert not (tmp_path / "executed").exists()


# ---- recipes


def test_recipes_refuse_what_they_do_not_know():
    with pytest.raises(ConfigError, match="quick, full, paper-b"):
        Recipe.preset("huge")
    with pytest.raises(ConfigError, match="no field learning_rate"):
        Recipe.preset("quick", learning_rate=1)
    for wrong in ({"epochs": 0}, {"lr": 0.0}, {"warmup": 1.0}, {"ema": 1.5}):
        with pytest.raises(ConfigError):
            Recipe(**wrong)


def test_a_recipe_survives_json():
    import json
    from dataclasses import asdict

    recipe = Recipe.preset("full", options={"tubelet": (4, 4, 4)})
    assert asdict(Recipe.from_dict(json.loads(json.dumps(asdict(recipe))))) == json.loads(
        json.dumps(asdict(recipe))
    ) | {"options": {"tubelet": [4, 4, 4]}}
