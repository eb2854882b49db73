"""`vivit-edu records`: what is stale, what is unknown, and runs that are made again."""

import json
from dataclasses import replace
from functools import partial

import pytest

from tests.tiny import tiny_recipe
from vivit_edu.cli import main
from vivit_edu.errors import ConfigError, DataError
from vivit_edu.experiments import code, repeats, runs, tables
from vivit_edu.experiments.ablate import run_table
from vivit_edu.experiments.repeats import note_code, recorded_runs, repeat, sample_runs, state_of, states
from vivit_edu.experiments.runs import train_run
from vivit_edu.experiments.tables import Row, train_on_share

SEEDS = 2


def small_table(epochs=1, percent=50):
    return [
        Row("all", tiny_recipe(epochs=epochs)),
        Row("a half", tiny_recipe(epochs=epochs), partial(train_on_share, percent=percent, train=train_run)),
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny_volumes):
    """The table.json of a small table of two rows and two seeds, made by the real writer."""
    out = tmp_path_factory.mktemp("small")
    run_table("small", small_table(), tiny_volumes, seeds=SEEDS, out=out, device="cpu")
    return (out / "table.json").read_bytes()


@pytest.fixture
def results(tmp_path, monkeypatch, tiny_volumes, written):
    """A folder of results with that table in it."""
    monkeypatch.setattr(tables, "TABLES", {"small": small_table})
    monkeypatch.setattr(repeats, "TABLES", tables.TABLES)
    monkeypatch.setattr(repeats, "load_volumes", lambda name, size, root=None: tiny_volumes)
    folder = tmp_path / "results"
    monkeypatch.setattr(repeats, "results_folder", lambda: folder)
    folder.mkdir()
    (folder / "small_tiny.json").write_bytes(written)
    return folder


def rewritten(results, change):
    path = results / "small_tiny.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return recorded_runs(path)


def test_a_new_record_is_current(results):
    found = recorded_runs(results / "small_tiny.json")
    assert [(run.row, run.seed) for run in found] == [("all", 0), ("all", 1), ("a half", 0), ("a half", 1)]
    assert {state_of(run) for run in found} == {("current", "")}
    assert "experiments.tables.train_on_share" in found[2].code.keys() - found[0].code.keys()


def test_a_changed_module_makes_its_runs_stale(results, monkeypatch):
    monkeypatch.setattr(
        code, "module_hash", lambda name, inner=code.module_hash: inner(name) + "*" * (name == "attention")
    )
    assert {state_of(run) for run in recorded_runs(results / "small_tiny.json")} == {("stale", "attention")}


def test_a_changed_function_makes_those_runs_stale_that_it_trained(results, monkeypatch):
    def changed(module, name, inner=code.function_hash):
        return inner(module, name) + "*" * (name == "train_on_share")

    monkeypatch.setattr(code, "function_hash", changed)
    found = [state_of(run) for run in recorded_runs(results / "small_tiny.json")]
    assert found == 2 * [("current", "")] + 2 * [("stale", "experiments.tables.train_on_share")]


@pytest.mark.parametrize(
    "table, why",
    [
        (lambda epochs=1: small_table(epochs)[:1], "the table 'small' has no such row now"),
        (lambda epochs=1: small_table(epochs, percent=40), "arguments"),
        (lambda epochs=1: [replace(row, recipe=tiny_recipe(lr=1e-5)) for row in small_table()], "lr was"),
    ],
)
def test_another_row_of_the_same_name_is_another_run(results, monkeypatch, table, why):
    tables.TABLES["small"] = table
    state, told = state_of(recorded_runs(results / "small_tiny.json")[-1])
    assert state == "stale" and told.startswith(why)


def test_a_table_that_is_gone_is_stale(results):
    tables.TABLES.clear()
    assert state_of(recorded_runs(results / "small_tiny.json")[0])[0] == "stale"


def test_no_code_is_unknown_and_one_seed_of_several_may_be(results):
    (all_now, _, _, half) = rewritten(results, lambda content: content["rows"][0]["code"].__setitem__(0, None))
    assert [state_of(all_now), state_of(half)] == [("unknown", ""), ("current", "")]

    def without(content):
        for row in content["rows"]:
            del row["code"]

    assert {state_of(run) for run in rewritten(results, without)} == {("unknown", "")}


def test_code_that_changed_while_a_run_was_interrupted_is_told(tmp_path, tiny_volumes, monkeypatch):
    """The run began with one version and went on with another: no code makes its figures."""
    recipe = tiny_recipe(epochs=2)
    train_run(tiny_volumes, replace(recipe, epochs=1), out=tmp_path / "one", device="cpu", figures=False)
    changed = {"old": "1", "training": "2"}
    monkeypatch.setattr(runs, "code_of", lambda *ignored: changed)
    metrics = train_run(tiny_volumes, recipe, out=tmp_path / "one", resume=True, device="cpu", figures=False)
    assert metrics["code"]["training"] == code.CHANGED and metrics["code"]["attention"] == code.CHANGED


def test_a_run_begun_before_code_was_noted_stays_unknown(tmp_path, tiny_volumes):
    train_run(tiny_volumes, tiny_recipe(epochs=1), out=tmp_path / "one", device="cpu", figures=False)
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    del run["code"]
    (tmp_path / "one" / "run.json").write_text(json.dumps(run))
    metrics = train_run(
        tiny_volumes, tiny_recipe(epochs=2), out=tmp_path / "one", resume=True, device="cpu", figures=False
    )
    assert "code" not in metrics


# ---- again


def test_a_run_comes_to_the_same_figures(results):
    for run in recorded_runs(results / "small_tiny.json")[::2]:
        again = repeat(run)
        assert again.same and again.verdict == "same" and again.off == 0 and again.code == run.code


def test_other_figures_are_within_the_tolerance_or_not(results):
    def off(by):
        def change(content):
            for split in ("val", "test"):
                content["rows"][0][split]["acc"]["runs"][0] += by
            content["rows"][0]["test"]["acc"]["sd"] = 0.01  # of seeds: three of a difference's are .0424

        return change

    run = rewritten(results, off(0.03))[0]
    assert run.tolerance == pytest.approx(0.0424, abs=1e-4)
    assert repeat(run).verdict == "within" and not repeat(run).same
    assert repeat(rewritten(results, off(0.03))[0]).verdict == "differs"  # .06 by now


def test_few_seeds_have_a_stated_tolerance(results):
    def spread(sd):
        return lambda content: content["rows"][0]["test"]["acc"].__setitem__("sd", sd)

    assert rewritten(results, spread(None))[0].tolerance == repeats.OF_ONE_SEED
    assert rewritten(results, spread(0.0))[0].tolerance == repeats.LEAST
    assert rewritten(results, spread(0.2))[0].tolerance == repeats.MOST


def test_a_repeated_run_may_write_its_code_and_another_may_not(results):
    def forget(content):
        content["rows"][0]["code"] = [None, None]
        content["rows"][1]["test"]["acc"]["runs"][0] += 0.01

    found = rewritten(results, forget)
    assert note_code(repeat(found[1])) and not note_code(repeat(found[2]))
    after = recorded_runs(results / "small_tiny.json")
    assert [state_of(run)[0] for run in after] == ["unknown", "current", "current", "current"]
    assert [replace(run, code=None, train=None) for run in after] == [
        replace(run, code=None, train=None) for run in found
    ]


def test_the_threads_are_those_of_the_record(results, monkeypatch):
    import torch

    seen = []

    def train(volumes, recipe, **rest):
        seen.append(torch.get_num_threads())
        return train_run(volumes, recipe, **rest)

    before = torch.get_num_threads()
    run = recorded_runs(results / "small_tiny.json")[0]
    for number in (before + 1, None):
        repeat(replace(run, threads=number, train=train))
    assert seen == [before + 1, before] and torch.get_num_threads() == before
    assert [repeats.threads_of(told) for told in ("cpu, 1 threads; cpu, 2 threads", "NVIDIA H200", "")] == [
        1,
        None,
        None,
    ]


def test_a_sample_is_the_same_for_a_seed_and_leaves_out_long_runs(results):
    drawn = [[(run.row, run.seed) for run in sample_runs(3, seed, 120)] for seed in range(8)]
    assert drawn == [[(run.row, run.seed) for run in sample_runs(3, seed, 120)] for seed in range(8)]
    assert len({*map(tuple, drawn)}) > 1 and all(len({*one}) == 3 for one in drawn)
    assert len(sample_runs(99, 0, 120)) == 4
    for row, seconds in enumerate(([500, 5], [5, 5])):  # tiny runs may round to 0
        rewritten(results, lambda content: content["rows"][row]["seconds"].__setitem__("runs", seconds))
    assert ("all", 0) not in [(run.row, run.seed) for run in sample_runs(99, 0, 120)]
    with pytest.raises(ConfigError, match="--most-seconds"):
        sample_runs(1, 0, 1e-9)


# ---- the command line


def test_the_command_says_what_is_stale(results, monkeypatch, capsys):
    (results / "log.json").write_text('{"title": "by hand"}')
    rewritten(results, lambda content: content["rows"][0]["code"].__setitem__(0, None))
    monkeypatch.setattr(code, "module_hash", lambda name, inner=code.module_hash: inner(name) + "*" * (name == "vivit"))
    assert main(["records"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["log.json", "1"] and lines[3].split() == ["small_tiny.json", "3", "1", "vivit"]


def test_the_command_repeats_and_fails_where_a_run_differs(results, monkeypatch, capsys):
    assert main(["records", "--repeat", "2", "--seed", "1"]) == 0
    assert capsys.readouterr().out.count(" same") == 2

    def change(content):
        for row in content["rows"]:
            row["test"]["acc"]["runs"] = [2.0, 2.0]

    rewritten(results, change)
    assert main(["records", "--repeat", "2", "--seed", "1"]) == 2
    assert "2 of 2 runs came to other figures" in capsys.readouterr().err


def test_data_that_are_not_there_are_named(results, monkeypatch, capsys):
    def missing(*names, **options):
        raise DataError("organmnist3d.npz is not here")

    monkeypatch.setattr(repeats, "load_volumes", missing)
    assert main(["records", "--repeat", "1"]) == 0
    assert "Not repeated: small_tiny.json" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--note"], ["--seed", "3"]])
def test_options_of_repeating_ask_for_it(flags, capsys):
    assert main(["records", *flags]) == 2
    assert "--repeat" in capsys.readouterr().err


def test_the_records_of_the_course_are_all_read():
    """Every run has its figures; the log of what was tried by hand holds none."""
    found = states()
    assert len(found) >= 15 and all(any(of_state.values()) for of_state in found.values())
    for path in found:
        for run in recorded_runs(path):
            assert {*run.figures} == {"val", "test"} and run.seconds > 0 and run.threads == 1, path
            assert repeats.LEAST <= run.tolerance <= repeats.MOST, (path, run.row)
