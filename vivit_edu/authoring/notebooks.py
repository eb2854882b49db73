"""`vivit-edu notebooks`: executes the masters that changed, cleans them, checks them against the rules of
`rules`, `exercises` and `outputs`, and makes the student notebooks, the map of the chapters and the tables of the
instructor's guide from them."""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

from ..course.map import course_map_markdown
from ..errors import ConfigError, VivitEduError
from . import guide
from .exercises import KINDS, kind_of, readers_lines, sections, student_notebook
from .masters import (
    Master,
    bootstrap_cell,
    checkout,
    master_paths,
    notebook_text,
    owner_and_name,
    read,
    repository,
    tags,
    write,
)
from .outputs import LIMIT, LIMITS, clean, digest, live, time_together
from .rules import broken_rules, where

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from pathlib import Path

# Chapters are executed as CI and every reader without a GPU would: the phantom, a CPU, two threads.
ENVIRONMENT = {
    "VIVIT_EDU_DATASET": "organphantom3d",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait slow a busy machine down many times over
}
PEAK_MEMORY = """
try:
    import resource, sys
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
except ImportError:  # Windows does not say
    print(0)
"""
MAP_BEGIN, MAP_END = "<!-- map: written by vivit-edu notebooks -->", "<!-- end of map -->"
MAP_CELL = "course-map"  # tag of the cell of chapter 00 that shows the map


def run(options: Namespace) -> None:
    """The command line's entry: options with check, repo, only and force, as the parser made them."""
    notebooks(check=options.check, repo=options.repo, only=options.only, force=options.force)


def notebooks(
    check: bool = False,
    repo: str | None = None,
    only: str | list | None = None,
    *,
    force: bool = False,
    folder: Path | None = None,
) -> None:
    """Brings the course's notebooks in order, or only says what is not.

    check: write nothing, execute nothing. repo: a new address of the repository, written to pyproject.toml, README,
    badges and bootstrap cells. only: chapters to execute and check, as "03,05" or numbers; None is all. force:
    execute also what has not changed. folder: the folder of the masters; None is notebooks/ of the checkout. Raises
    VivitEduError, whose message lists every broken rule and failed cell, and ConfigError where there is no checkout,
    no such chapter, or no address of a repository.
    """
    folder = folder or checkout() / "notebooks"
    if repo is not None:
        if check:
            raise ConfigError("--check writes nothing and --repo does: give one of the two.")
        repo = set_repository(repo, folder.parent)
    paths = choose(master_paths(folder), only)
    found = [] if check else [text for path in paths for text in renew(path, force=force)]
    if not check:
        generate(folder)
    found += violations(folder, paths, repo)
    if found:
        raise VivitEduError("\n- ".join([f"{len(found)} to mend in the notebooks:", *found]))
    print(overview(paths))
    print(f"{len(paths)} notebooks are in order.")


def overview(paths: list[Path]) -> str:
    """A table of the chapters: lines of code, the reader's among them, figures, and exercises by kind."""
    from tabulate import tabulate

    rows = []
    for path in paths:
        master = read(path)
        own, total = readers_lines(master)
        kinds = [kind_of(heading) for _, heading, _ in sections(master)]
        drawn = sum("image/png" in output.get("data", {}) for _, cell in master.code for output in cell.outputs)
        share = f"{own / max(total, 1):.0%}"
        rows.append((master.chapter, total, own, share, drawn, *map(kinds.count, KINDS)))
    headers = ("chapter", "code lines", "the reader's", "share", "figures", *KINDS)
    return tabulate(rows, headers, colalign=("right",) * len(headers))


def choose(paths: list[Path], only: str | list | None) -> list[Path]:
    """Those of the masters whose chapter is named in `only`: "03,05", ["3", "5"], [3, 5]; None is all."""
    if only is None:
        return paths
    there = {path.name[:2]: path for path in paths}
    wanted = only.split(",") if isinstance(only, str) else only
    names = [name and name.zfill(2) for name in (str(name).strip() for name in wanted)]  # "" is not chapter 00
    if unknown := [name for name in names if name not in there]:
        known = ", ".join(there) or "none yet"
        raise ConfigError(f"no chapter {', '.join(name or repr(name) for name in unknown)}: expected some of {known}.")
    return [there[name] for name in names]


def violations(folder: Path, paths: list[Path] | None = None, repo: str | None = None) -> list[str]:
    """What is wrong with these masters (None: all), and with what is made of all masters, as strings."""
    paths = master_paths(folder) if paths is None else paths
    repo = repo or repository()
    found = [text for path in paths for text in broken_rules(read(path, repo))]
    found += time_together([read(path) for path in master_paths(folder)])
    stale = [
        path.relative_to(folder.parent).as_posix()
        for path, text in made_files(folder).items()
        if not path.is_file() or path.read_bytes() != text.encode("utf-8")
    ]
    student = {path.name for path in (folder / "exercises").glob("*.ipynb")}
    stray = student - {path.name for path in master_paths(folder)}
    found += [f"{name} is not in step with the masters: run `vivit-edu notebooks`" for name in stale]
    return found + [f"notebooks/exercises/{name} has no master: delete it" for name in sorted(stray)]


# ---- executing


def renew(path: Path, *, force: bool = False) -> list[str]:
    """Executes a master where its code changed (or by force), cleans it and writes it; returns violations.

    A master in which a cell fails stays as it was.
    """
    master = read(path)
    known = master.nb.metadata.get("vivit_edu", {})
    found = []
    if force or known.get("digest") != digest(master.nb) or not _has_run(master):
        print(f"{path.name}: executing …", flush=True)
        try:
            slowest = execute(master)
        except CellFailed as error:
            return [f"{where(master, error.number)} {error}"]
        measured = master.nb.metadata["vivit_edu"]
        print(f"{path.name}: {measured['seconds']} s, {measured['peak_mb']} MB; slowest {slowest}")
        found = [f"{where(master, number)} {text}" for number, text in live(master)]
    clean(master)
    write(path, notebook_text(master.nb))
    return found


def _has_run(master: Master) -> bool:
    return all(cell.execution_count for _, cell in master.code)


class CellFailed(VivitEduError):
    """A cell that raised an error or did not end; `number` is its place among all cells, from 1."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def execute(master: Master) -> str:
    """Runs all cells in a fresh kernel, in the notebook's folder; fills in outputs and measurements.

    Returns the three slowest cells, as text. Raises CellFailed where a cell raised an error, or took over three times
    what the whole chapter may take.
    """
    from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
    from nbformat.v4 import new_code_cell

    cells, probe, now = master.nb.cells, new_code_cell(PEAK_MEMORY), []
    cells.append(probe)
    client = ExecutePreprocessor(
        kernel_name="python3",
        timeout=3 * LIMITS.get(master.chapter, LIMIT),
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],  # no remark on the kernel's sockets, which are local
        on_cell_start=lambda cell, cell_index: now.append((cell_index + 1, time.perf_counter())),
    )
    try:
        with environment(ENVIRONMENT):
            client.preprocess(master.nb, {"metadata": {"path": str(master.path.parent)}})
    except (CellExecutionError, TimeoutError, RuntimeError) as error:  # a dead kernel is a RuntimeError
        number = now[-1][0] if now else 1  # no cell began where the kernel itself did not start
        raise CellFailed(number, f"failed:\n{last_lines(str(error))}") from None
    finally:
        cells.remove(probe)
    # from the first cell to the probe, imports included, the kernel's own start not
    times = [(after - before, number) for (number, before), (_, after) in zip(now, now[1:])]
    master.nb.metadata.setdefault("vivit_edu", {}).update(
        digest=digest(master.nb),
        seconds=round(now[-1][1] - now[0][1], 1),
        peak_mb=round(int(probe.outputs[0].text) / 1e6) or None,
    )
    return ", ".join(f"cell {number} {seconds:.1f} s" for seconds, number in sorted(times, reverse=True)[:3])


def last_lines(text: str) -> str:
    """Text without a terminal's colours, its last 30 lines."""
    return "\n".join(re.sub(r"\x1b\[[\d;]*m", "", text).strip().splitlines()[-30:])


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


# ---- what is made of the masters: student notebooks, the map and the instructor's guide


def generate(folder: Path) -> None:
    """Writes the student notebooks and the map; deletes student notebooks that have no master any more."""
    made = made_files(folder)
    for path, text in made.items():
        write(path, text)
    for path in (folder / "exercises").glob("*.ipynb"):
        if path not in made:
            path.unlink()


def made_files(folder: Path) -> dict[Path, str]:
    """Path and text of every file that is made of the masters in a folder, as it must be."""
    masters = [read(path) for path in master_paths(folder)]
    names = [master.path.name for master in masters]
    made = {}
    for master in masters:
        try:
            made[folder / "exercises" / master.path.name] = notebook_text(student_notebook(master, names))
        except Exception as error:  # nbgrader refuses it; the rules say why
            print(f"{master.path.name}: no student notebook: {error}", file=sys.stderr)
    table = course_map_markdown(folder)
    for master in masters:
        shown = [output for _, cell in master.code if MAP_CELL in tags(cell) for output in cell.outputs]
        for output in shown:
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = table
        if shown:
            made[master.path] = notebook_text(master.nb)
    readme = folder.parent / "README.md"
    if masters and readme.is_file() and MAP_BEGIN in (text := readme.read_text(encoding="utf-8")):
        before, rest = text.split(MAP_BEGIN, 1)
        table = course_map_markdown(folder, prefix="notebooks/")
        made[readme] = f"{before}{MAP_BEGIN}\n{table}\n{MAP_END}{rest.split(MAP_END, 1)[-1]}"
    instructors = folder / "README.md"
    if instructors.is_file() and guide.GUIDE_BEGIN in (text := instructors.read_text(encoding="utf-8")):
        made[instructors] = guide.filled_in(text, folder)
    return made


# ---- the repository's address


def set_repository(repo: str, root: Path) -> str:
    """Writes a new address of the repository wherever the old one stands; returns it in its plain form."""
    repo = f"https://github.com/{owner_and_name(repo)}"
    project = root / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    old = re.search(r'^Repository = "([^"]+)"', text, re.M)[1]
    known = re.compile(rf"(github\.com/|colab\.research\.google\.com/github/){re.escape(owner_and_name(old))}(?![\w-])")
    for path in (project, root / "README.md", root / "data" / "README.md"):
        if path.is_file():
            write(path, known.sub(rf"\g<1>{owner_and_name(repo)}", path.read_text(encoding="utf-8")))
    for path in master_paths(root / "notebooks"):
        master = read(path, repo)
        for cell in master.nb.cells:
            changed = known.sub(rf"\g<1>{owner_and_name(repo)}", cell.source)
            cell.source = bootstrap_cell(repo) if "bootstrap" in tags(cell) else changed
        clean(master)
        write(path, notebook_text(master.nb))
    return repo


def notebook_page(path: Path) -> str:
    """A notebook as the text of an HTML page, with the alt texts of its figures, which nbconvert drops."""
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_filename(str(path))
    outputs = [output for _, cell in read(path).code for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    alts = iter([escape(output.metadata.get("image/png", {}).get("alt", "")) for output in pictures])
    missing = 'alt="No description has been provided for this image"'
    return re.sub(missing, lambda _: f'alt="{next(alts, "")}"', page)
