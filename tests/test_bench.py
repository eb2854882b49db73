"""The benches print a table that says what was measured and where; augmentation is cheap beside training."""

import torch

from vivit_edu import bench
from vivit_edu.cli import main
from vivit_edu.training import Recipe


def test_augmentation_costs_less_than_a_fifth_of_a_training_step(capsys):
    assert main(["bench", "augment", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    shares = {name: float(share) for name, _, _, share, _ in table[1:]}  # of a step, fastest against fastest
    assert shares["training step of the default model"] == 1
    assert shares["augmentation, preset quick"] < 0.2
    assert shares["augmentation, all of the regularisation table"] < 0.25  # on a quiet machine .19
    for wanted in ("vivit-edu bench augment", "torch ", "cpu, "):
        assert wanted in printed


def test_functions_are_measured_in_turns():
    order = []
    seconds = bench.measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, torch.device("cpu"), repeats=3)
    assert order == ["a", "b"] * 5 and {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_the_step_trains(monkeypatch):
    built = []
    monkeypatch.setattr(bench, "build_model", lambda *a, **o: built.append(torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(8, 2))) or built[0])
    step = bench.make_step(Recipe(), torch.zeros(4, 1, 2, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1, 1]))
    before = built[0][1].bias.clone()
    step()
    assert not torch.equal(built[0][1].bias, before)


def test_an_unknown_bench_is_answered_with_the_benches(capsys):
    assert main(["bench", "luck"]) == 2
    assert "augment" in capsys.readouterr().err

