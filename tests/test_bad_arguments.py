"""Whatever is typed after `vivit-edu`: it runs and exits with 0, or says in one message why not and exits with 2.

What hypothesis draws is the same every time, so that a failure can be looked at. The data set and the recipe
behind the names are tiny; all else is the real thing.
"""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu import data, training
from vivit_edu.cli import main
from vivit_edu.experiments import runs
from vivit_edu.experiments.bench import benches as bench

DRAWN = settings(max_examples=25, deadline=None, derandomize=True, database=None)
WORDS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
    st.sampled_from(
        [
            "",
            "-1",
            "0",
            "nan",
            "1e3",
            "9" * 40,
            "x" * 300,
            "..",
            "run",
            "file",
            "file/x",
            "full",
            "--",
            "-h",
            "é/\udcff",
        ]
    ),
)


def maybe(option, *values):
    """The option with one of its right values or with any word, or not at all."""
    value = st.sampled_from(values) | WORDS
    return st.just([]) | st.tuples(st.just(option), value).map(list)


def line(*parts):
    """A command line: words, and strategies for parts of it."""
    parts = [part if isinstance(part, st.SearchStrategy) else st.just([part]) for part in parts]
    return st.tuples(*parts).map(lambda lists: [word for part in lists for word in part])


NAME = st.just([]) | (st.sampled_from(["organphantom3d", "movingshapes", "adrenalmnist3d"]) | WORDS).map(
    lambda name: [name]
)
RUN = (st.sampled_from(["run", "full", "file", "nowhere"]) | WORDS).map(lambda name: [name])
DEVICE = maybe("--device", "cpu", "cuda", "cuda:7", "mps", "meta", "xla")
LINES = {
    "data": line("data", NAME, maybe("--root", "full"), maybe("--size", "28", "64"), maybe("--out", "out", "file")),
    "train": line(
        "train",
        NAME,
        maybe("--model", "spacetime", "cnn3d"),
        maybe("--preset", "quick"),
        maybe("--epochs", "1", "2"),
        maybe("--seed", "1"),
        maybe("--out", "run", "file"),
        maybe("--pretrained", "file", "full", "torchvision:vit"),
        maybe("--inflate", "central"),
        maybe("--videos", "full", "file"),
        maybe("--frames", "4"),
        maybe("--size", "28", "112"),
        maybe("--val", "full", "file"),
        maybe("--clips", "3"),
        DEVICE,
        st.sampled_from([[], ["--resume"]]),
    ),
    "evaluate": line("evaluate", RUN, maybe("--root", "full"), st.sampled_from([[], ["--views"]]), DEVICE),
    "explain": line(
        "explain",
        RUN,
        maybe("--sample", "0", "14", "15"),
        maybe("--split", "val"),
        maybe("--method", "last-layer"),
        DEVICE,
    ),
    "ablate": line(
        "ablate",
        st.sampled_from([["tubelet"], ["motion"], []]) | WORDS.map(lambda word: [word]),
        NAME,
        maybe("--seeds", "1"),
        maybe("--epochs", "1"),
        maybe("--out", "file", "full"),
        DEVICE,
    ),
    "bench": line(
        "bench", st.sampled_from([["augment"], ["models"], []]) | WORDS.map(lambda word: [word]), NAME, DEVICE
    ),
    "pretrain": line(
        "pretrain",
        NAME,
        maybe("--epochs", "1"),
        maybe("--seed", "1"),
        maybe("--out", "out/slices.safetensors", "run", "file/x.safetensors"),
        DEVICE,
    ),
    "notebooks": line(
        "notebooks",
        "--check",
        "--only",
        WORDS.filter(str.strip).map(lambda word: [word]),
        maybe("--repo", "https://example.org"),
    ),
    "classroom": line(
        "classroom", st.sampled_from(["file", "full"]).map(lambda word: [word]), maybe("--chapters", "99")
    ),
    "site": line("site", st.sampled_from(["file", "full"]).map(lambda word: [word])),
    "anything": st.lists(WORDS, max_size=3),
}


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """A folder with a run, a file and a folder of something else in it; no network; small data, short recipes."""

    def load(name="organmnist3d", **options):
        small = name in ("organphantom3d", "movingshapes", "tiny") and options.get("size") in (28, 64, 8)
        return make_tiny_volumes() if small else load_volumes(name, **options)

    def unreachable(*_, **__):
        raise OSError("no network")

    load_volumes, folder = data.load_volumes, tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder / "home"))
        patch.setattr("requests.adapters.HTTPAdapter.send", unreachable)
        patch.setattr(data, "load_volumes", load)
        patch.setattr(data, "course_volumes", lambda *_, **__: make_tiny_volumes())
        patch.setattr(runs, "load_volumes", load)
        patch.setattr(training.Recipe, "preset", lambda name, **changes: tiny_recipe(**changes))
        patch.setattr(bench, "BENCHES", {name: lambda *_: (["a"], [["1"]], "Nothing.") for name in bench.BENCHES})
        assert main(["train", "--epochs", "1", "--device", "cpu", "--out", "run"]) == 0
        (folder / "file").write_text("some text")
        (folder / "full").mkdir()
        (folder / "full" / "notes.txt").write_text("more of it")
        yield folder


def tell(arguments):
    """(exit status, what was written to stderr)."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        try:
            status = main(arguments)
        except SystemExit as stop:  # argparse's way
            status = stop.code
    return status, said.getvalue()


@pytest.mark.parametrize("command", LINES)
@DRAWN
@given(drawn=st.data())
def test_a_command_line_runs_or_ends_in_one_message_and_status_2(command, drawn):
    arguments = drawn.draw(LINES[command])
    status, said = tell(arguments)
    assert status in (0, 2) and "Traceback" not in said
    if status == 2:
        own = [line for line in said.splitlines() if line.startswith("vivit-edu") and ": " in line]
        assert len(own) == 1 and own[0].partition(": ")[2].strip()


@pytest.mark.parametrize(
    "arguments", [["evaluate", "x" * 300], ["explain", "x" * 300], ["train", "--resume", "--out", "x" * 300]]
)
def test_a_path_that_the_system_refuses_is_a_message(arguments):
    status, said = tell(arguments)
    assert status == 2 and "too long" in said and len(said.splitlines()) == 1


def test_a_name_that_the_terminal_cannot_show(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert main(["train", "--epochs", "1", "--device", "cpu", "--out", "größe"]) == 0
    assert rb"checkpoint: gr\xf6\xdfe" in written.getvalue()
