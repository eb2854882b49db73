"""What a run leaves in a notebook: cleaned, so that it is the same on every machine, and checked."""

from __future__ import annotations

import re
from hashlib import sha1, sha256
from typing import TYPE_CHECKING

from .masters import PLOT, Master, Violations, checkout, notebook_text, tags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbformat import NotebookNode

LIMITS = {"12": 180, "14": 180}  # seconds a chapter may take on two cores; the others:
LIMIT = 90
LIMIT_TOGETHER = 12 * 60
LARGEST_FILE = 1_500_000  # bytes
WIDGET = "application/vnd.jupyter.widget-view+json"
CHECKED = "nbval-check-output"
RUN = "run `vivit-edu notebooks`"
BAR = re.compile(r"^.*\d+(%|it) ?[|\[].*$\n?", re.M)  # a line that tqdm wrote
PRIVATE = re.compile(r"(?<![\w.])(/(home|Users|root|tmp|private|var)/|[A-Z]:\\\\?)[\w.-]+|\bsite-packages\b")
SIGNED_ZERO = re.compile(r"(?<![\w.])[-−](?:0+(?:[.,]0*)?|\.0+)(?:e[+-]?\d+)?(?![\d.])", re.I)
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")


# ---- cleaning


def clean(master: Master) -> None:
    """Removes from the notebook, in place, what differs from run to run or from machine to machine."""
    nb = master.nb
    nb.nbformat, nb.nbformat_minor = 4, 5
    kept = {"vivit_edu": nb.metadata["vivit_edu"]} if "vivit_edu" in nb.metadata else {}
    nb.metadata.clear()
    nb.metadata.update(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
        **kept,
    )
    seen = set()
    for cell in nb.cells:
        cell.id = _cell_id(cell, seen)
        cell.source = cell.source.rstrip()
        for key in set(cell.metadata) - {"nbgrader", "tags"}:
            del cell.metadata[key]
        if PLOT in tags(cell):
            cell.metadata.update(jupyter={"source_hidden": True}, cellView="form")  # JupyterLab, Colab
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_clean_output, cell.outputs) if output is not None]


def _cell_id(cell: NotebookNode, seen: set[str]) -> str:
    """An id that depends on the source alone: editing a cell changes one id, converting a file none."""
    stem = sha1(f"{cell.cell_type}\n{cell.source.rstrip()}".encode()).hexdigest()[:12]
    copy, name = 1, stem
    while name in seen:
        copy += 1
        name = f"{stem}-{copy}"
    seen.add(name)
    return name


def _clean_output(output: NotebookNode) -> NotebookNode | None:
    """The output without progress bars and live widgets, which no file keeps; None where nothing is left."""
    if WIDGET in output.get("data", {}):
        return None
    if output.output_type == "stream" and output.name == "stderr":
        output.text = BAR.sub("", output.text.replace("\r", "\n"))
        if not output.text.strip():
            return None
    return output


def digest(nb: NotebookNode) -> str:
    """A fingerprint of all code: it changes when the notebook must be executed again.

    The bootstrap cell is left out: another repository's address changes no output.
    """
    code = [cell for cell in nb.cells if cell.cell_type == "code" and "bootstrap" not in tags(cell)]
    return sha256("\n\0\n".join(cell.source.rstrip() for cell in code).encode()).hexdigest()[:16]


# ---- rules, each a generator of (number of the cell or None, what is wrong and how to mend it)


def executed(master: Master) -> Violations:
    """The outputs belong to the code that stands there."""
    run = master.nb.metadata.get("vivit_edu", {})
    if run.get("digest") != digest(master.nb):
        yield None, f"its code has changed since it was executed: {RUN}"


def counts(master: Master) -> Violations:
    """Every code cell ran once, from the top to the bottom."""
    for expected, (number, cell) in enumerate(master.code, 1):
        if cell.execution_count != expected:
            yield number, f"execution count is {cell.execution_count}, expected {expected}: {RUN}"
            return  # the rest is off for the same reason


def errors(master: Master) -> Violations:
    for number, cell in master.code:
        for output in cell.outputs:
            if output.output_type == "error":
                yield (
                    number,
                    (f"ends in {output.ename}: mend the cell; an error shown on purpose is caught and printed"),
                )
            elif output.output_type == "stream" and output.name == "stderr":
                first = output.text.strip().splitlines()[0][:80]
                yield (
                    number,
                    (f"writes to stderr ({first!r}): mend the cause of the warning, or print what readers need"),
                )


def leftovers(master: Master) -> Violations:
    """Nothing that cleaning takes away: widget states, progress bars, metadata of editors."""
    if "widgets" in master.nb.metadata:
        yield None, f"holds metadata.widgets, which GitHub cannot show: {RUN}"
    import copy
    from dataclasses import replace

    cleaned = replace(master, nb=copy.deepcopy(master.nb))
    clean(cleaned)
    if notebook_text(cleaned.nb) != notebook_text(master.nb):
        yield None, f"is not clean (widget outputs, progress bars, foreign metadata or cell ids): {RUN}"


def figures(master: Master) -> Violations:
    """Figures are PNG and have alt text, for readers who cannot see them."""
    for number, cell in master.code:
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data and not output.metadata.get("image/png", {}).get("alt", "").strip():
                yield number, "shows a figure without alt text: show it by plots.show(figure)"
            others = [kind for kind in data if kind.startswith(("image/", "video/")) and kind != "image/png"]
            if others or re.search(r"<(img|svg|video|canvas)\b|data:image", str(data.get("text/html", ""))):
                yield (
                    number,
                    (
                        f"shows a figure as {', '.join(others) or 'HTML'}: only PNG shows "
                        "everywhere, by plots.show(figure)"
                    ),
                )


def private(master: Master) -> Violations:
    """No path of the machine that it ran on, no address in its memory."""
    try:
        here = str(checkout())
    except ValueError:
        here = None
    for number, cell in enumerate(master.nb.cells, 1):
        outputs = [str(part) for output in cell.get("outputs", []) for part in _readable(output)]
        for words in [cell.source, *outputs]:
            found = PRIVATE.search(words)
            if found or (here and here in words):
                path = found[0] if found else "the checkout's folder"
                yield number, f"holds a path of one machine ({path}): show names relative to the notebook"
        if any(ADDRESS.search(words) for words in outputs):
            yield number, ("prints an object's address, which differs in every run: print what the object holds")


def _readable(output: NotebookNode) -> Iterator[str]:
    """What can be read in an output: its text and every text in its data, pictures left out."""
    yield from (output.get("text", ""), *output.get("traceback", []))
    yield from (value for kind, value in output.get("data", {}).items() if not kind.startswith("image/"))


def checked_share(master: Master) -> Violations:
    """At least a third of the cells that print are compared by nbval, and those that are can be compared."""
    printing = [(number, cell) for number, cell in master.code if prints(cell)]
    checked = [number for number, cell in printing if CHECKED in tags(cell)]
    if 3 * len(checked) < len(printing):
        yield (
            None,
            (
                f"{len(checked)} of {len(printing)} cells that print are tagged {CHECKED}; expected at "
                "least a third: tag those that print the same on every machine (shapes, counts; no losses)"
            ),
        )
    for number, cell in master.code:
        # nbval compares texts and HTML; pictures it leaves out, so that a figure may stand in a checked cell
        if CHECKED in tags(cell) and cell.execution_count and not cell.outputs:
            yield number, f"is tagged {CHECKED} but leaves no output to compare: take the tag away"


def signed_zeros(master: Master) -> Violations:
    """No checked cell prints -0.00: the sign of a number that rounds to zero differs between machines."""
    for number, cell in master.code:
        if CHECKED not in tags(cell):
            continue
        found = [SIGNED_ZERO.search(str(words)) for output in cell.outputs for words in _readable(output)]
        if found := next(filter(None, found), None):
            yield (
                number,
                f"prints {found[0]}, whose sign differs between machines: add 0.0 after rounding, "
                "format with {:z.2f}, or print a size instead",
            )


def live(master: Master) -> Violations:
    """Right after a run, before cleaning: no checked cell draws what cleaning takes away and nbval misses."""
    for number, cell in master.code:
        if CHECKED in tags(cell) and any(
            WIDGET in output.get("data", {}) or output.get("name") == "stderr" for output in cell.outputs
        ):
            yield (
                number,
                (
                    f"is tagged {CHECKED} but draws a progress bar or a widget, which no file keeps: "
                    "print the result in a cell of its own and tag that one"
                ),
            )


def prints(cell: NotebookNode) -> bool:
    """Whether a code cell leaves text: printed, or as the value of its last line."""
    return any(
        output.output_type == "stream"
        and output.name == "stdout"
        or output.output_type == "execute_result"
        and "text/plain" in output.data
        for output in cell.outputs
    )


def size_and_time(master: Master) -> Violations:
    size = len(notebook_text(master.nb).encode())
    if size > LARGEST_FILE:
        yield (
            None,
            (
                f"is {size / 1e6:.1f} MB, at most {LARGEST_FILE / 1e6:.1f}: show fewer or smaller "
                "figures (plots.show(figure, dpi=60))"
            ),
        )
    seconds = master.nb.metadata.get("vivit_edu", {}).get("seconds", 0)
    limit = LIMITS.get(master.chapter, LIMIT)
    if seconds > limit:
        yield (
            None,
            (f"took {seconds:.0f} s, at most {limit}: fewer clips or epochs, or a recorded run in notebooks/results"),
        )


def time_together(masters: list[Master]) -> Iterator[str]:
    """The one rule over all masters; yields its violation as text."""
    seconds = sum(master.nb.metadata.get("vivit_edu", {}).get("seconds", 0) for master in masters)
    if seconds > LIMIT_TOGETHER:
        yield (
            f"all chapters together took {seconds / 60:.1f} minutes, at most {LIMIT_TOGETHER // 60}: "
            "shorten the longest"
        )


OUTPUT_RULES = (executed, counts, errors, leftovers, figures, private, checked_share, signed_zeros, size_and_time)
