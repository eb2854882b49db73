"""The full run of chapter 12: who decides which run follows, what is kept, and the chapter in the branch of a GPU."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu import Recipe, fit, load_volumes, plots
from vivit_edu.augment import Augmentation
from vivit_edu.authoring.masters import checkout, read, tags
from vivit_edu.course import culmination, run_figures
from vivit_edu.course.ready import ch12 as finished
from vivit_edu.course.recorded import load_own, own_run, recorded
from vivit_edu.errors import ConfigError
from vivit_edu.experiments.bench import loops
from vivit_edu.experiments.code import code_of_functions
from vivit_edu.support.checkpoint import plain as plain_values
from vivit_edu.training import build_seeded

SMALL = {"tubelet": (7, 7, 7), "dim": 16, "depth": 1, "heads": 2, "mlp_dim": 32}


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A computer without a GPU, with runs in a folder of the test, on which nothing is timed."""
    for name in ("VIVIT_EDU_FULL", "VIVIT_EDU_EPOCHS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VIVIT_EDU_RUNS", str(tmp_path))
    monkeypatch.setattr(culmination, "best_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(culmination, "seconds_per_epoch", lambda *_: 8.0)
    return monkeypatch


@pytest.fixture
def volumes(phantom):
    return load_volumes("organphantom3d")


@pytest.fixture
def few(volumes):
    """A few clips of each split of the phantom."""
    parts = {name: getattr(volumes, name).subset(slice(0, None, 8)) for name in ("train", "val", "test")}
    return replace(volumes, **parts)


@pytest.fixture
def small_presets(monkeypatch):
    def small(name, preset=Recipe.preset):
        recipe = preset(name, model="factorised_encoder" if name == "full" else "spacetime")
        return replace(recipe, options=SMALL, batch_size=8)

    monkeypatch.setattr(Recipe, "preset", small)


def test_without_a_gpu_a_short_run_follows(here, volumes, capsys):
    plan = culmination.which_run(volumes)
    assert (plan.whole, plan.folder, plan.recipe.epochs, plan.epochs) == (False, None, culmination.SHORT_EPOCHS, 120)
    said = capsys.readouterr().out
    assert "no GPU" in said and "16 minutes" in said and "VIVIT_EDU_FULL=1" in said and "24 s" in said


def test_a_gpu_or_the_variable_takes_the_whole_recipe(here, volumes, capsys):
    here.setenv("VIVIT_EDU_FULL", "1")
    plan = culmination.which_run(volumes)
    assert (plan.whole, plan.recipe.epochs) == (True, 120)
    assert plan.folder == own_run("organphantom3d") == culmination.chapter_folder("organphantom3d")
    assert "runs/chapter12-organphantom3d" in capsys.readouterr().out
    here.delenv("VIVIT_EDU_FULL")
    here.setattr(culmination, "best_device", lambda: torch.device("cuda"))
    plan = culmination.make_plan(volumes)
    assert plan.whole and plan.why.startswith("There is a GPU") and not plan.recipe.bfloat16


def test_a_shortened_run_is_never_taken_for_the_whole_one(here, volumes):
    here.setenv("VIVIT_EDU_FULL", "yes")
    here.setenv("VIVIT_EDU_EPOCHS", "2")
    plan = culmination.make_plan(volumes)
    assert plan.recipe.epochs == 2 and plan.folder.name == "chapter12-organphantom3d-2-epochs"
    assert culmination.make_plan(volumes, "quick").folder.name == "chapter12-organphantom3d-quick-2-epochs"


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_epochs_is_refused(here, volumes, wrong):
    here.setenv("VIVIT_EDU_EPOCHS", wrong)
    with pytest.raises(ConfigError, match="VIVIT_EDU_EPOCHS"):
        culmination.make_plan(volumes)


def test_nothing_is_kept_of_a_short_run(here, few, small_presets, tmp_path):
    here.setenv("VIVIT_EDU_EPOCHS", "1")
    run = culmination.train_here(culmination.make_plan(few), few)
    assert len(run.history) == 1 and not list(tmp_path.iterdir())


def test_a_finished_run_is_loaded_and_not_made_again(here, few, small_presets):
    here.setenv("VIVIT_EDU_FULL", "1")
    here.setenv("VIVIT_EDU_EPOCHS", "1")
    plan = culmination.make_plan(few)
    first = culmination.train_here(plan, few)
    written = (plan.folder / "checkpoint.pt").stat().st_mtime_ns
    again = culmination.train_here(plan, few)
    assert (plan.folder / "checkpoint.pt").stat().st_mtime_ns == written
    assert again.history.rows == first.history.rows
    for p, q in zip(first.model.parameters(), again.model.parameters()):
        assert torch.equal(p, q)


def test_times_in_words():
    assert [culmination.duration(s) for s in (0.2, 42.4, 600, 9000)] == ["1 s", "42 s", "10 minutes", "2.5 hours"]


def test_the_time_of_an_epoch_is_measured(few, small_presets):
    recipe = replace(Recipe.preset("quick"), batch_size=4)
    assert 0 < culmination.seconds_per_epoch(recipe, few, torch.device("cpu")) < 60


def test_the_chapters_loop_is_the_packages(few):
    recipe = Recipe(
        options=SMALL, epochs=2, batch_size=16, lr=2e-3, optimiser="muon", ema=0.9, warmup=0.2,
        augmentation=Augmentation(mirror=True, shift=0.05, rotate=10.0),
    )  # fmt: skip
    mine, theirs = build_seeded(recipe, few, 3), build_seeded(recipe, few, 3)
    own = finished.fit(mine, few, recipe, seed=3)
    assert own == pytest.approx(fit(theirs, few, recipe, seed=3, progress=False)["loss"], abs=1e-5)


def test_the_page_of_tried_recipes_is_up_to_date():
    content = recorded("tried_recipes.json")
    assert [len(search["rows"]) for search in content["searches"]] == [29, 9]  # the 38 of which the chapter speaks
    named = {row["file"] for row in content["recorded"]} | {
        name for name, _ in content["recorded_search"]["files"].values()
    }
    tables = {name: recorded(name) for name in named}
    page = (checkout() / "notebooks" / "results" / "tried_recipes.md").read_text(encoding="utf-8")
    assert page == run_figures.tried_page(content, tables)


def test_finer_volumes_are_as_the_chapter_says():
    chapter = read(checkout() / "notebooks" / "12_full_training.ipynb")
    phantom, adrenal = (recorded(f"search_{name}.json") for name in ("organphantom3d", "adrenalmnist3d"))
    for split, key, table, told in (
        ("val", "acc", phantom, (".918", ".939")),
        ("test", "acc", phantom, (".931", ".897")),
        ("test", "auc", adrenal, (".806", ".809")),
    ):
        full, fine = (f"{row[split][key]['mean']:.3f}".lstrip("0") for row in table["rows"])
        assert (full, fine) == told and table["tested_on"]
        assert any(f"{told[1]} against {told[0]}" in cell.source for _, cell in chapter.text)


def chapter_cells():
    """The code cells of chapter 12."""
    return [cell for _, cell in read(checkout() / "notebooks" / "12_full_training.ipynb").code]


def culminating_cells():
    """The code cells of chapter 12 from the full run on, before them the imports and what the reader writes."""
    master = read(checkout() / "notebooks" / "12_full_training.ipynb")
    sources = [cell.source for _, cell in master.code]
    begin = next(k for k, source in enumerate(sources) if 'Recipe.preset("full")' in source)
    for k, (_, cell) in enumerate(master.code):
        grading = cell.metadata.get("nbgrader", {})
        if "bootstrap" in tags(cell) or grading.get("grade"):
            continue
        if k >= begin or grading.get("solution") or cell.source.startswith("import "):
            yield cell.source


@pytest.mark.parametrize("plain", [False, True], ids=["organs", "two classes, no patients, no masks, no mirror"])
def test_chapter_12_in_the_branch_of_a_gpu(plain, here, few, small_presets, tmp_path, capsys):
    """Trained for one epoch: the run is kept with all that chapter 13 needs, and is what is shown afterwards."""
    import vivit_edu

    if plain:

        def bare(split):
            return replace(split, labels=split.labels % 2, patients=None, masks=None)

        parts = {name: bare(getattr(few, name)) for name in ("train", "val", "test")}
        few = replace(few, name="adrenalmnist3d", class_names=("normal", "hyperplasia"), mirror=None, **parts)
    here.setenv("VIVIT_EDU_FULL", "1")
    here.setenv("VIVIT_EDU_EPOCHS", "1")
    here.setattr(vivit_edu, "course_volumes", lambda size=28: few, raising=False)
    figures = []
    here.setattr(plots, "show", lambda figure, *_, caption="", **__: figures.append((figure.alt_text, caption)))
    here.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for source in culminating_cells():
        exec(compile(source, "<chapter 12>", "exec"), names)
    folder = tmp_path / f"chapter12-{few.name}-1-epochs"
    kept = {path.name for path in folder.iterdir()}
    assert {"run.json", "metrics.json", "history.json", "checkpoint.pt"} <= kept
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["epochs"] == 1 and metrics["dataset"] == few.name
    model, facts = load_own(folder)  # as chapter 13 does
    assert facts["own"] and facts["test"]["acc"] == pytest.approx(names["found"].acc)
    for p, q in zip(model.parameters(), names["run"].model.parameters()):
        assert torch.equal(p, q)
    assert len(figures) >= 8 and all(alt and caption for alt, caption in figures)
    said = capsys.readouterr().out
    assert "VIVIT_EDU_FULL is set" in said and f"From here on: your run in runs/{folder.name}" in said
    assert (tmp_path / f"chapter12-{few.name}-quick-1-epochs" / "metrics.json").is_file()  # the rival


def test_muon_against_adamw_is_as_the_chapter_says():
    adamw, muon = recorded("optimisers_organphantom3d.json")["rows"]
    for row in (adamw, muon):
        losses = dict(zip(row["rates"]["lr"], row["rates"]["val_loss"]))
        best = min(losses, key=losses.get)
        assert best not in (min(losses), max(losses)), "the best rate is not at the end of those that were tried"
        assert len(row["test"]["acc"]["runs"]) == 3
    lead = muon["test"]["acc"]["mean"] - adamw["test"]["acc"]["mean"]
    assert lead > 4 * max(adamw["test"]["acc"]["sd"], muon["test"]["acc"]["sd"])  # "by far more than twice the spread"
    assert 2.6 < adamw["loss"]["mean"] / muon["loss"]["mean"] < 3.4  # "about three times as high"


def test_the_figure_of_the_optimisers_shows_what_is_recorded():
    rows = recorded("optimisers_organphantom3d.json")["rows"]
    left, right = run_figures.optimiser_curves(rows).axes
    for row, line in zip(rows, left.lines, strict=True):
        assert [list(line.get_xdata()), list(line.get_ydata())] == [row["rates"]["lr"], row["rates"]["val_loss"]]
    drawn = [list(line.get_ydata()) for line in right.lines]
    assert drawn == [losses for row in rows for losses in row["history"]["loss"]]


def test_the_two_loops_are_as_the_chapter_says():
    content = recorded("loops_movingshapes.json")
    rows = content["rows"]
    assert content["recipe"] == plain_values(asdict(loops.TOY))
    assert set(content["code"]) == set(code_of_functions(loops.compare_loops))
    scope = {"Recipe": Recipe, "culmination": culmination}
    first = next(cell.source for cell in chapter_cells() if "toy = Recipe(" in cell.source)
    exec(first, scope)
    assert scope["toy"] == loops.TOY, "the record is of the chapter's first figure"
    plain, whole = ([row for row in rows if row["loop"] == name] for name in dict.fromkeys(row["loop"] for row in rows))
    apart = [
        abs(one["val_loss"]["mean"] - two["val_loss"]["mean"]) / max(one["val_loss"]["sd"], two["val_loss"]["sd"])
        for one, two in zip(plain, whole)
    ]
    assert [row["lr"] for row in plain] == [0.001, 0.003, 0.01]
    assert max(plain[0]["loss"]["runs"]) < min(whole[0]["loss"]["runs"]) < 1.5, "at .001 the plain one ends lower"
    assert apart[0] < 1 and apart[1] > 2, "level on validation clips, then decided"
    assert abs(whole[1]["val_loss"]["mean"] - whole[0]["val_loss"]["mean"]) < whole[1]["val_loss"]["sd"], "as good"
    assert min(plain[2]["val_loss"]["mean"], whole[2]["val_loss"]["mean"]) > 2, "at .01 both are near guessing"
    assert sorted(end > 2 for end in whole[2]["loss"]["runs"]) == [False, False, True]
    figure = run_figures.loops_over_rates(rows, classes=8)
    for axes, key in zip(figure.axes, ("loss", "val_loss")):
        assert list(axes.lines[0].get_ydata()) == [row[key]["mean"] for row in plain]


def test_loops_are_compared_from_the_same_weights_at_each_rate():
    seen = []

    def loop(model, volumes, recipe, seed):
        seen.append((recipe.lr, seed, round(sum(p.sum().item() for p in model.parameters()), 4)))
        return [2.0, 1.0 + seed]

    rows = loops.compare_loops(make_tiny_volumes(), tiny_recipe(), (0.1, 0.2), (0, 1), {"one": loop, "two": loop})
    assert [(row["loop"], row["lr"]) for row in rows] == [("one", 0.1), ("one", 0.2), ("two", 0.1), ("two", 0.2)]
    assert rows[0]["loss"]["runs"] == [1.0, 2.0] and len(rows[0]["val_loss"]["runs"]) == 2
    assert seen[:4] == seen[4:] and len(set(seen)) == 4 and len({weights for _, _, weights in seen}) == 2
