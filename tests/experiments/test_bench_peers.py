"""The benches next to others' code: like is compared with like, and the tables' arithmetic is right; times vary."""

import pytest
import torch

from tests.tiny import tiny_recipe
from vivit_edu.cost import count_parameters
from vivit_edu.datasets.shapes import generate_shapes
from vivit_edu.errors import ConfigError
from vivit_edu.experiments.bench import accuracy as bench_accuracy
from vivit_edu.experiments.bench import benches as bench
from vivit_edu.experiments.bench import growth as bench_growth
from vivit_edu.experiments.bench import peers as bench_peers
from vivit_edu.experiments.bench import start as bench_start
from vivit_edu.experiments.bench.libraries import PEERS, build_ours
from vivit_edu.experiments.bench.pipeline import ORGAN_CLASSES, ORGAN_MIRROR, pipeline, reference_loader
from vivit_edu.experiments.tables import keras_example
from vivit_edu.volumes import Split

CPU = torch.device("cpu")
SMALL = bench_peers.PeerSizes(
    options={"tubelet": (14, 14, 14), "dim": 32, "depth": 2, "heads": 4, "mlp_dim": 64},
    batch=2,
    repeats=1,
    matrix=64,
    batches=2,
    compiler="eager",
)


# ---- peers


def test_the_table_of_peers_has_every_comparison():
    heads, rows, remark = bench_peers.peers(CPU, sizes=SMALL)
    titles = [row[0] for row in rows]
    for wanted in (
        "Model 1, transformers with our GELU, training",
        "Model 1, transformers as published, inference",
        "Model 1 compiled, transformers as published, training",
        "Model 2, vit-pytorch, training",
        "Model 3, vit-pytorch, inference",
        "Model 4, which has no peer: transformers' Model 1, training",
    ):
        assert wanted in titles
    assert titles[-1].startswith("an epoch of 4 clips") and all(len(row) == len(heads) for row in rows)
    assert "2 clips of 1×28×28×28, tubelets of 14×14×14, float32" in remark


@pytest.mark.parametrize("activation", ["gelu", "gelu_fast"])
def test_twins_have_the_same_weights_and_sizes(activation):
    ours, theirs = bench_peers.equal_models(SMALL, activation)
    clips = torch.rand(3, 1, 28, 28, 28)
    torch.testing.assert_close(ours(clips), theirs(clips), atol=1e-5, rtol=0)
    assert count_parameters(ours) == count_parameters(theirs)


def test_twins_that_compute_something_else_are_not_timed(monkeypatch):
    monkeypatch.setattr(bench_peers, "load_pretrained", lambda *_: None)
    with pytest.raises(ConfigError, match="differ by .* would say nothing"):
        bench_peers.equal_models(SMALL, "gelu")


@pytest.mark.parametrize("name", PEERS)
def test_at_the_size_of_the_bench_peers_have_our_parameters(name):
    sizes = bench_peers.PeerSizes()
    assert count_parameters(PEERS[name][1](sizes)) == pytest.approx(count_parameters(build_ours(name, sizes)), rel=0.02)


def test_ratios_are_theirs_by_ours():
    assert bench_peers.times({"ours": [2, 1, 4], "theirs": [3, 6, 5]}) == ["1000", "3000", "3.00 ×", "2.50 ×"]


# ---- the pipeline


def test_the_reference_loader_gives_every_clip_once_in_0_to_1_with_its_label():
    values = torch.arange(10, dtype=torch.uint8) * 20
    clips = values.reshape(-1, 1, 1, 1, 1).expand(10, 1, 28, 28, 28).contiguous()
    seen = [
        (round(float(clip.max() * 255)), target.argmax().item())
        for batch, targets in reference_loader(Split(clips, torch.arange(10) % ORGAN_CLASSES), 4)
        for clip, target in zip(batch, targets)
    ]
    assert len(seen) == 10
    for brightness, label in seen:  # a gain of .2 at most; a mirrored clip has its label swapped
        assert any(
            abs(brightness - 20 * k) <= 4 * k + 1 and label in (k, ORGAN_MIRROR.permutation[k]) for k in range(10)
        )
    assert sorted(min(label, ORGAN_MIRROR.permutation[label]) for _, label in seen) == sorted(
        min(k, ORGAN_MIRROR.permutation[k]) for k in range(10)
    )


def test_the_pipeline_is_measured_with_and_without_workers():
    heads, rows, remark = pipeline(CPU, count=8, batch=4, repeats=1)
    assert [row[0].rsplit(", ")[-1] for row in rows] == ["the set on the device", "0 workers", "2 workers"]
    assert rows[0][3] == "1.0 ×" and "shift 0.1, gain 0.2, mirror True" in remark


# ---- growth and start


def test_the_exponent_is_that_of_a_power_law():
    tokens = [27, 64, 125, 343]
    assert bench_growth.exponent(tokens, [3 * n**1.5 for n in tokens]) == pytest.approx(1.5)
    assert bench_growth.exponent(tokens, [1e9, *(n**2 for n in tokens[1:])]) == pytest.approx(2)


def test_growth_names_tokens_and_theory():
    heads, rows, _ = bench_growth.growth(CPU, edges=(4, 8, 12), repeats=1)
    assert heads[1:4] == ["1 tokens", "8 tokens", "27 tokens"] and len(rows) == 4
    assert rows[0][-1] == "2.00" and float(rows[2][-1]) < 2


def test_start_runs_what_it_names_in_new_processes(monkeypatch):
    monkeypatch.setattr(
        bench_start, "CODE", {"bare Python": "", "import torch": "pass", "broken": "raise SystemExit(3)"}
    )
    monkeypatch.setattr(bench_start, "kernel_start", lambda: None)
    monkeypatch.setattr(bench_start, "busy_rows", lambda torch_takes: [["on a busy machine", "", "", ""]])
    with pytest.raises(Exception, match="exit status 3"):
        bench_start.start(CPU, repeats=1)
    monkeypatch.delitem(bench_start.CODE, "broken")
    _, rows, _ = bench_start.start(CPU, repeats=1)
    titles = [row[0] for row in rows]
    assert (
        titles[:3] == ["bare Python", "import torch", "kernel, and the imports of chapter 03"]
        and titles[3] == "on a busy machine"
        and "chapter 03" in titles
    )


def test_a_kernel_starts_and_runs_the_imports_of_chapter_03():
    bench_start.kernel_start()


def test_without_a_name_all_but_the_gpu_are_run(monkeypatch, capsys):
    from vivit_edu.cli import main

    made = {name: lambda device, volumes, name=name: ([name], [[name]], f"ran {name}.") for name in bench.BENCHES}
    monkeypatch.setattr(bench, "BENCHES", made)
    assert main(["bench", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert (
        all((f"ran {name}." in printed) == (name not in bench.APART) for name in made)
        and "vivit-edu bench growth" in printed
    )


# ---- time to accuracy


def test_a_goal_is_reached_when_three_epochs_have_it_on_average():
    history = [(1.0, 0.2), (2.0, 0.9), (3.0, 0.4), (4.0, 0.5), (5.0, 0.7)]
    assert bench_accuracy.reached(history, 0.5) == 6.0  # .2, .9 and .4
    assert bench_accuracy.reached(history, 0.6) == 10.0
    assert bench_accuracy.reached(history, 0.61) is None and bench_accuracy.reached(history[:2], 0.1) is None


def test_time_to_accuracy_has_a_row_a_seed(tiny_volumes):
    recipe = tiny_recipe(epochs=4)
    heads, rows, remark = bench_accuracy.accuracy(CPU, tiny_volumes, seeds=2, keras=recipe, ours=recipe)
    assert [row[0] for row in rows] == ["0", "1", "median"] and all(len(row) == len(heads) for row in rows)
    assert "Keras' example rebuilt here" in remark


def test_the_example_has_27_tokens():
    n_t, s = keras_example().build(generate_shapes(cycles={"train": 4})).grid
    assert n_t * s == 27
