"""How a chapter is written, as rules: each a generator of (number of the cell or None, what is wrong and how
to mend it). The rules of what a run leaves stand in `outputs`, those of the exercises in `exercises`."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from .. import __all__ as EXPORTED
from . import exercises, outputs
from .masters import OFFER, PLOT, Master, Violations, badges, bootstrap_cell, read, tags

if TYPE_CHECKING:
    from nbformat import NotebookNode

# [words](target) or ![words](target); the words of a badge hold a picture of their own
LESSONS = set(
    "volumes data cnn embedding attention vivit models cost pretrained augment optimisers training explain plots errors"
    " course".split()
)  # what a notebook may import from the package, besides the names that `vivit_edu` itself exports
AXIS_NAMES = set("b c t h w nt nh nw pt ph pw s n m d k q v".split())
FOLDED_FROM = 4  # lines of code that a cell which draws may show; longer ones are folded
LINK = re.compile(
    r"(?<!\\)(!?)\[((?:[^\[\]]|\[[^\]]*\](?:\([^)]*\))?)*)\]" r"\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)"
)
HTML_LINK = re.compile(r"<(?:a\b[^>]*\bhref|img\b[^>]*\bsrc)\s*=\s*[\"']([^\"']+)[\"']", re.I)


def broken_rules(master: Master) -> list[str]:
    """All rules on one notebook: its violations as a list of strings, empty where it is in order."""
    found = []
    for rule in (*TEXT_RULES, *exercises.EXERCISE_RULES, *outputs.OUTPUT_RULES):
        for number, text in rule(master):
            found.append(f"{where(master, number)} {text}")
    return found


def where(master: Master, number: int | None = None) -> str:
    """The notebook, and a cell by its number from 1 and the beginning of its first line."""
    if number is None:
        return f"{master.path.name}:"
    cell = master.nb.cells[number - 1]
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"{master.path.name}, {cell.cell_type} cell {number} ({first.strip()[:40]!r}):"


def prose(cell: NotebookNode) -> str:
    """A markdown cell without its code: what is written there is neither heading nor link."""
    return re.sub(r"`[^`\n]+`", "``", re.sub(r"^( *)(```|~~~).*?^ *\2", "", cell.source, flags=re.M | re.S))


# ---- the frame: first cell, second cell, last cell


def first_cell(master: Master) -> Violations:
    """Title, what is built, minutes, hardware and the two badges."""
    cell = master.nb.cells[0] if master.nb.cells else None
    if cell is None or cell.cell_type != "markdown":
        yield None, f"the first cell must be markdown and begin with '# {master.chapter} · Title'"
        return
    if not re.match(rf"# {master.chapter} · \S", cell.source):
        yield 1, f"must begin with '# {master.chapter} · Title', the number that the file's name has"
    if not OFFER.search(cell.source):
        yield (
            1,
            (
                "lacks the line that the course map is made of: 'Builds: tubelets · about 60 minutes to read "
                "and solve · a CPU is enough'"
            ),
        )
    for badge in badges(master.name, master.repo).splitlines():
        if badge not in cell.source:
            yield 1, f"lacks this badge, as it is written here: {badge}"
    opened = re.findall(r"colab\.research\.google\.com/github/\S+?\.ipynb", cell.source)
    if len(opened) > 2:
        yield 1, f"holds {len(opened)} Colab addresses, expected the two badges alone"


def second_cell(master: Master) -> Violations:
    """The bootstrap, the same everywhere; no other cell installs anything."""
    second = master.nb.cells[1] if len(master.nb.cells) > 1 else None
    if (
        second is None
        or second.cell_type != "code"
        or second.source != bootstrap_cell(master.repo)
        or "bootstrap" not in tags(second)
    ):
        number = None if second is None else 2
        yield (
            number,
            (
                "must be the bootstrap: a code cell tagged 'bootstrap' that holds, letter for letter, "
                "vivit_edu.authoring.masters.bootstrap_cell(repository())"
            ),
        )
    for number, cell in master.code:
        if number != 2 and re.search(r"^\s*[!%]", cell.source, re.M):
            yield number, "holds a magic (! or %): only the bootstrap cell may; write it in Python"


def last_cells(master: Master) -> Violations:
    """The chapter counts up what was reached and says what to take along."""
    number, cell = master.code[-1] if master.code else (None, None)
    if cell is None or not _calls(cell.source, "progress"):
        yield number, f'the last code cell must call progress("{master.chapter}")'
    if not any(re.search(r"^#+ What to take along", cell.source, re.M) for _, cell in master.text):
        yield None, "has no heading 'What to take along': three to five lines at the end"


# ---- code


def cell_lengths(master: Master) -> Violations:
    """One idea a cell: the median at most 6 lines, 90 % at most 15, only a class over 30, none over 40."""
    lengths = [sum(bool(line.strip()) for line in cell.source.splitlines()) for _, cell in master.code]
    if not lengths:
        yield None, "has no code cell"
        return
    if median(lengths) > 6:
        yield None, f"its code cells have {median(lengths):g} lines in the median, at most 6: one idea a cell"
    long = [length for length in lengths if length > 15]
    if 10 * len(long) > len(lengths):
        yield None, (f"{len(long)} of {len(lengths)} code cells have over 15 lines, at most a tenth may: split them")
    for (number, cell), length in zip(master.code, lengths):
        if not length:
            yield number, "is empty: delete it"
        has_class = any(isinstance(node, ast.ClassDef) for node in _body(cell.source))
        if length > (40 if has_class else 30):
            yield number, f"has {length} lines: only a class may have over 30, and none over 40"


def shapes(master: Master) -> Violations:
    """Every new module ends in its shape: in the cell that defines it or in the next code cell."""
    for (number, cell), following in zip(master.code, [cell for _, cell in master.code[1:]] + [None]):
        modules = [
            node.name
            for node in _body(cell.source)
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Module") for base in node.bases)
        ]
        if (
            modules
            and not cell.metadata.get("nbgrader", {}).get("solution")
            and not any(".shape" in one.source for one in (cell, following) if one is not None)
        ):
            yield (
                number,
                (f"defines {modules[-1]} but neither it nor the next code cell shows a shape: print(… .shape)"),
            )


def calls(master: Master) -> Violations:
    """Figures, progress bars and data by the ways that keep alt text and show the same in every front end."""
    for number, cell in master.code:
        if re.search(r"\bplt\.show\(", cell.source):
            yield number, "calls plt.show(), which loses the alt text: use plots.show(figure)"
        if re.search(r"^\s*(from tqdm(\.notebook)? import|import tqdm$)", cell.source, re.M):
            yield number, "takes its progress bar from tqdm: take it from tqdm.auto"
        if re.search(r"[\"'](\.\./)*results/", cell.source):
            yield (
                number,
                (
                    "opens a recorded run by a path, which is another in exercises/: "
                    "use recorded(name) from vivit_edu.course.recorded"
                ),
            )
        if outputs.CHECKED in tags(cell) and _calls(cell.source, "course_volumes"):
            yield (
                number,
                (
                    "is checked and loads data, which shows a progress bar the first time: "
                    "load in a cell of its own, without the tag"
                ),
            )


def imports(master: Master) -> Violations:
    """A notebook imports from the lessons and from `vivit_edu.course` alone; the other rooms may change."""
    for number, cell in master.code:
        code = ast.Module(_body(cell.source), [])
        used = set(re.findall(r"\bvivit_edu\.(\w+)", ast.unparse(code)))  # imports and names in text alike
        for node in ast.walk(code):
            if isinstance(node, ast.ImportFrom) and node.module == "vivit_edu":
                used |= {alias.name for alias in node.names}
        if wrong := sorted(used - LESSONS - set(EXPORTED)):
            yield (
                number,
                f"imports vivit_edu.{wrong[0]}: a notebook imports from the lessons "
                "(vivit_edu.attention, …), from vivit_edu.course, and the names that vivit_edu exports",
            )


def strips(master: Master) -> Violations:
    """Every slider has a film strip beside it that shows where nothing runs."""
    explorers = set()
    for (number, cell), following in zip(master.code, [cell for _, cell in master.code[1:]] + [None]):
        for node in ast.walk(ast.Module(_body(cell.source), [])):
            if isinstance(node, ast.ImportFrom) and node.module in (
                "vivit_edu.course.widgets",
                "vivit_edu.course.attention_widget",
                "ipywidgets",
            ):
                explorers |= {alias.asname or alias.name for alias in node.names}
        used = [name for name in explorers if _calls(cell.source, name)]
        used += re.findall(r"\bwidgets\.\w+(?=\()", cell.source)
        drawn = [output for one in (cell, following) if one is not None for output in one.get("outputs", [])]
        if used and not any("image/png" in output.get("data", {}) for output in drawn):
            yield (
                number,
                (f"shows the slider {used[0]} without its film strip: the next code cell shows one by plots.show"),
            )


def folded(master: Master) -> Violations:
    """A cell whose code is folded only draws; in a rewritten chapter every longer cell that draws is folded."""
    rewritten = exercises.share_asked(master) is not None
    for number, cell in master.code:
        draws = re.search(r"\b(plots\.show|show|\w*_strip|\w*explorer|explore)\(", cell.source)
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if PLOT in tags(cell):
            if not draws:
                yield number, f"is tagged {PLOT}, which folds its code, but shows no figure: take the tag away"
            if cell.metadata.get("nbgrader"):
                yield number, f"is part of an exercise and tagged {PLOT}, which folds its code: take the tag away"
        elif rewritten and draws and len(lines) > FOLDED_FROM and not cell.metadata.get("nbgrader"):
            yield number, f"draws in {len(lines)} lines: tag it {PLOT}, so that its code is folded"


def notation(master: Master) -> Violations:
    """In a rewritten chapter einops patterns name the axes as the whole course does."""
    if exercises.share_asked(master) is None:
        return
    for number, cell in master.code:
        nodes = list(ast.walk(ast.Module(_body(cell.source), [])))
        given = [arg for node in nodes if isinstance(node, ast.Call) and _is_einops(node) for arg in node.args]
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and (node in given or "(" in node.value):
                if what := wrong_axes(node.value):
                    yield number, f"in the pattern {node.value!r} {what}"


def _is_einops(node: ast.Call) -> bool:
    return ast.unparse(node.func).split(".")[-1].lower() in ("rearrange", "repeat", "reduce")


def wrong_axes(pattern: str) -> str:
    """What is wrong with the names of the axes in an einops pattern; "" where nothing is, or it is no pattern."""
    if not re.fullmatch(r"[\w\s().]+->[\w\s().]+", pattern):
        return ""
    names = {name for name in re.findall(r"[a-z_]\w*", pattern)}
    if unknown := [name for name in sorted(names) if len(name) < 3 and name not in AXIS_NAMES]:
        return (
            f"{unknown[0]!r} is no axis of the course's notation: b c t h w for clips, nt nh nw and pt ph pw for their "
            "tubelets, s and n for tokens, d for features, heads, a word of three letters for anything else"
        )
    if "h" in names and "w" not in names:
        return "'h' stands for a height beside no width: heads are 'heads'"
    if names & {"s", "nh", "nw"} and names & {"h", "w"} or "t" in names and names & {"s", "d"}:
        return "tokens and voxels are mixed: tokens have nt, nh, nw or s, tubelets pt, ph, pw"
    return ""


def _body(source: str) -> list[ast.stmt]:
    """The statements of a cell; none where it is no plain Python (a magic, said elsewhere)."""
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def _calls(source: str, name: str) -> bool:
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name
        for node in ast.walk(ast.Module(_body(source), []))
    )


# ---- text


def headings(master: Master) -> Violations:
    """One title, and no level left out: readers with a screen reader walk by headings."""
    level = 0
    for number, cell in master.text:
        for marks, title in re.findall(r"^(#{1,6}) +(.*)$", prose(cell), re.M):
            if len(marks) == 1 and level:
                yield number, f"holds a second title {title!r}: a chapter has one #; use ##"
            if len(marks) > level + 1:
                yield (
                    number,
                    (f"the heading {title!r} is of level {len(marks)} after one of level {level}: leave no level out"),
                )
            level = len(marks)


def picture_alts(master: Master) -> Violations:
    """Pictures in the text have alt text too."""
    for number, cell in master.text:
        for image, words, target in LINK.findall(prose(cell)):
            if image and not words.strip():
                yield number, f"the picture {target} has no alt text: ![what it shows]({target})"
        for picture in re.findall(r"<img\b[^>]*>", prose(cell), re.I):
            if not re.search(r"\balt\s*=\s*[\"'][^\"']*[^\"'\s]", picture):
                yield number, 'a picture has no alt text: <img alt="what it shows" …>'


def links(master: Master) -> Violations:
    """Links inside the repository lead somewhere; those to other places are not followed."""
    for number, cell in master.text:
        text = prose(cell)
        nested = [inner for _, words, _ in LINK.findall(text) for inner in LINK.findall(words)]
        targets = [target for *_, target in [*LINK.findall(text), *nested]] + HTML_LINK.findall(text)
        for target in targets:
            if re.match(r"(https?|mailto):", target):
                continue
            file, _, anchor = target.partition("#")
            path = master.path.parent / file if file else master.path
            if not path.exists():
                yield number, f"the link to {target} leads nowhere: no such file beside this notebook"
            elif anchor and anchor not in _anchors(master if not file else path):
                yield (
                    number,
                    (f"the link to {target} leads nowhere: no such heading (Heading-With-Dashes, as Jupyter names it)"),
                )


def _anchors(target: Master | Path) -> set[str]:
    """What may stand behind # in a link: Jupyter's names of a notebook's headings, GitHub's of a page's."""
    if isinstance(target, Path) and target.suffix != ".ipynb":
        titles = re.findall(r"^#{1,6} +(.*)$", target.read_text(encoding="utf-8"), re.M)
        return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
    cells = [cell for _, cell in (read(target) if isinstance(target, Path) else target).text]
    titles = [title for cell in cells for title in re.findall(r"^#{1,6} +(.*?)\s*$", cell.source, re.M)]
    given = re.compile(r"\b(?:id|name)\s*=\s*[\"']([^\"']+)")
    named = {name for cell in cells for name in given.findall(cell.source)}
    return named | {re.sub(r"[`*]", "", title).replace(" ", "-") for title in titles}


TEXT_RULES = (
    first_cell,
    second_cell,
    last_cells,
    cell_lengths,
    shapes,
    calls,
    imports,
    strips,
    folded,
    notation,
    headings,
    picture_alts,
    links,
)
