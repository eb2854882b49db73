"""The benches print a table that says what was measured and where; augmentation is cheap beside training."""

import pytest
import torch

from vivit_edu.cli import main
from vivit_edu.experiments.bench import benches as bench
from vivit_edu.experiments.bench.steps import make_pass, make_step
from vivit_edu.training import Recipe


def test_augmentation_is_held_against_a_training_step(capsys):
    assert main(["bench", "augment", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    shares = {name: float(share) for name, _, _, share, _ in table[1:]}  # of a step, fastest against fastest
    assert shares["training step of the default model"] == 1
    assert 0 < shares["augmentation, preset quick"] < shares["augmentation, with random augment, smoothing and mixup"]
    for wanted in ("vivit-edu bench augment", "torch ", "cpu, "):
        assert wanted in printed


def test_functions_are_measured_in_turns():
    order = []
    seconds = bench.measure(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, torch.device("cpu"), repeats=3
    )
    assert order == ["a", "b"] * 5 and {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_the_step_trains_the_model_it_is_given_through_what_is_called_in_its_place():
    model, called = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2)), []
    step = make_step(
        model, Recipe(), torch.ones(4, 1, 2, 2, 2), torch.tensor([0, 1, 1, 1]), lambda x: called.append(x) or model(x)
    )
    before = model[1].bias.clone()
    step()
    assert len(called) == 1 and not torch.equal(model[1].bias, before)


@pytest.mark.parametrize("backward", [True, False])
def test_a_pass_is_one_of_training_or_of_inference_and_leaves_no_gradients(backward):
    model, seen = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2)), []
    model.register_forward_hook(lambda module, _, out: seen.append((module.training, out.requires_grad)))
    make_pass(model, torch.ones(4, 1, 2, 2, 2), backward)()
    assert seen == [(backward, backward)] and all(p.grad is None for p in model.parameters())


def test_an_unknown_bench_is_answered_with_the_benches(capsys):
    assert main(["bench", "luck"]) == 2
    assert "augment" in capsys.readouterr().err


def test_all_models_are_measured_side_by_side(monkeypatch, capsys):
    """One row a model, its own parameters and FLOPs; for the shape of the data set that is named."""
    from vivit_edu import MODELS, build_model
    from vivit_edu.cost import count_flops, count_parameters
    from vivit_edu.datasets import shapes

    measure = bench.measure
    monkeypatch.setattr(bench, "measure", lambda functions, device, repeats: measure(functions, device, repeats=1))
    monkeypatch.setattr("vivit_edu.data.load_volumes", lambda *_, **__: shapes.generate_shapes(cycles={"train": 4}))
    assert main(["bench", "models", "movingshapes", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| `")
    ]
    assert [row[0] for row in rows] == list(MODELS)
    model = build_model("slow_fusion", num_classes=8)
    row = rows[MODELS.index("slow_fusion")]
    assert float(row[1]) == round(count_parameters(model) / 1e6, 2)
    assert float(row[2]) == round(count_flops(model, (1, 28, 28, 28)) / 1e9, 3)
    assert all(float(cell) > 0 for row in rows for cell in row[1:])
    assert all(float(row[3]) > float(row[4]) for row in rows if row[0] in ("slow_fusion", "cnn_attention"))
    assert "vivit-edu bench models movingshapes" in printed


def test_with_train_the_table_of_accuracies_follows(monkeypatch, tmp_path, capsys, tiny_volumes):
    from tests.tiny import tiny_recipe
    from vivit_edu.experiments import tables

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(bench.BENCHES, "models", lambda device, volumes: (["model"], [["a"]], "cost of"))
    monkeypatch.setitem(tables.TABLES, "all-models", lambda: [tables.Row("a", tiny_recipe())])
    monkeypatch.setattr("vivit_edu.data.load_volumes", lambda *_, **__: tiny_volumes)
    assert main(["bench", "models", "tiny", "--train", "--seeds", "1", "--epochs", "1", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("cost of") < printed.index("val accuracy") and "vivit-edu ablate all-models tiny" in printed


def test_every_table_has_one_cell_for_each_head_and_keeps_its_text(monkeypatch):
    """Numbers are printed as the bench wrote them: 1.50 stays 1.50."""
    rows = [["ours", "1.50", "–"], ["theirs, a longer name", "2e3", ""]]
    monkeypatch.setitem(bench.BENCHES, "augment", lambda *_: (["", "ms", "ratio"], rows, "Nothing."))
    table, remark = bench.bench_table("augment", "cpu").split("\n\n")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert cells[0] == ["", "ms", "ratio"] and cells[2:] == rows and all(set(c) <= set("-:") for c in cells[1])
    assert remark.startswith("`vivit-edu bench augment`: Nothing. cpu, ") and remark.endswith(".")
