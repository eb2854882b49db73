"""Outputs that nbval compares are the same on every machine: a zero shows no sign."""

import re

import pytest

from vivit_edu.authoring.masters import checkout, master_paths, read, tags
from vivit_edu.authoring.outputs import CHECKED

MASTERS = master_paths(checkout() / "notebooks")
ZERO = re.compile(r"(?<![\w.,+-])-?0\.0+(?![\w.])")  # what rounding may give a sign on another machine
FIXED = re.compile(r":[<>^]?(z?)[\d,]*\.\d+[f%]")  # {x:.2f}; with z, Python writes no -0.00

# cells whose zeros come from values that cannot be negative: a piece of their source -> what the values are
NEVER_NEGATIVE = {
    "4 * n**2 / 1024": "bytes",
    ".softmax(dim=-1)  # all queries": "attention weights",
    "block.drop_path.rate": "rates from 0 to .3",
    "stochastic_depth(branch": "ones that are dropped or kept",
}


def checked(path):
    """(number of the cell, its source, what it printed) of the cells that nbval compares."""
    for number, cell in read(path).code:
        if CHECKED in tags(cell):
            parts = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in cell.outputs]
            yield number, cell.source, "".join(parts)


def unsafe(source):
    """What in a cell's source may print a signed zero: the format or the rounding."""
    formats = [found[0] for found in FIXED.finditer(source) if not found[1]]
    rounded = re.findall(r"round\([^\n]*?, \d\)(?! \+ 0\.0)", source)
    return formats + rounded


@pytest.mark.parametrize("path", MASTERS, ids=lambda path: path.stem)
def test_no_checked_output_shows_a_zero_that_may_have_a_sign(path):
    showing = [(number, source) for number, source, text in checked(path) if ZERO.search(text)]
    showing = [(number, source) for number, source in showing if not any(part in source for part in NEVER_NEGATIVE)]
    assert not {number: unsafe(source) for number, source in showing if unsafe(source)}


def test_what_is_unsafe():
    assert unsafe('print(f"{growth(frames, flops):17.2f}")') == [":17.2f"]
    assert unsafe("print(round(x.item(), 2))") == ["round(x.item(), 2)"]
    assert unsafe('print(f"{x:z17.2f}, {y:>z8,.1f}", round(x.item(), 2) + 0.0)') == []
    assert f"{-0.001:z.2f} {round(-0.001, 2) + 0.0}" == "0.00 0.0"
