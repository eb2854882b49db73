"""The shape ledger grows by chapter, and its numbers are those of the modules when they run."""

import re

import pytest
import torch

from vivit_edu import build_model
from vivit_edu.attention import MultiHeadAttention
from vivit_edu.cost import PAPER, attention_pairs
from vivit_edu.course.ledger import COLUMNS, ledger, rows

ROWS = {row.module: row for row in rows()}
MODELS = dict(zip(PAPER, [name for name in ROWS if "(Model" in name]))


def shown(chapter, monkeypatch):
    """What ledger(chapter) displays: {mime type: content}."""
    displays = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: displays.append(bundle))
    ledger(chapter)
    (bundle,) = displays
    return bundle


def test_it_grows_by_chapter_and_marks_what_is_new(monkeypatch):
    for chapter in range(3, 15):
        lines = shown(chapter, monkeypatch)["text/plain"].splitlines()[1:-1]
        new = [line for line in lines if line.startswith("new")]
        assert len(lines) == sum(row.chapter <= chapter for row in rows())
        assert len(new) == sum(row.chapter == chapter for row in rows())
        assert bool(new) == (chapter <= 8)
        assert lines == sorted(lines, key=lambda line: line.split()[line.startswith("new")])


def test_page_and_text_hold_the_same_cells(monkeypatch):
    bundle = shown("05", monkeypatch)
    page = re.sub(r"</?(b|code)>|<wbr>", "", bundle["text/html"]).replace("&nbsp;", " ").replace("&gt;", ">")
    table = [re.findall(r"<t[dh]>(.*?)</t[dh]>", line) for line in re.findall(r"<tr>(.*?)</tr>", page)]
    assert all(len(line) == len(COLUMNS) for line in table)
    for cells, line in zip(table, bundle["text/plain"].splitlines()):
        assert " ".join(cells).split() == line.split()


def test_before_the_first_tokens_there_is_none(capsys):
    ledger(2)
    assert "begins in chapter 03" in capsys.readouterr().out


def test_the_courses_sizes():
    tubelets, attention = ROWS["TubeletEmbedding"], ROWS["MultiHeadAttention"]
    assert (tubelets.given[1:], tubelets.made[1:], tubelets.tokens) == ((1, 28, 28, 28), (4, 16, 128), 64)
    assert tubelets.parameters == 343 * 128 + 128 and tubelets.attention == 0
    assert ROWS["FrameEmbedding"].parameters == 49 * 128 + 128
    assert ROWS["learned_positions"].parameters == 64 * 128 and ROWS["prepend_cls"].made[1:] == (65, 128)
    assert (attention.given[1:], attention.made[1:]) == ((64, 128), (64, 128))
    assert attention.parameters == sum(p.numel() for p in MultiHeadAttention(128, 4).parameters())
    assert attention.attention == 64 * 64 * 4
    assert ROWS["Block over time"].given[1:] == (4, 128)


@pytest.mark.parametrize("name", PAPER)
def test_a_models_row_is_what_the_model_does(name):
    row, model = ROWS[MODELS[name]], build_model(name)
    assert row.made[1:] == model(torch.rand(1, *row.given[1:])).shape[1:] == (11,)
    assert row.parameters == sum(p.numel() for p in model.parameters()) and row.tokens == 64
    pairs = attention_pairs(name, 4, 16)  # Model 2's count holds a temporal layer, too
    assert row.attention == 4 * (pairs - 4**2 if name == "factorised_encoder" else pairs)
    assert all(str(figure) in row.paper for figure in PAPER[name])


@pytest.mark.parametrize(
    "module, name",
    [
        ("Block", "spacetime"),
        ("FactorisedSelfAttentionBlock", "factorised_self_attention"),
        ("FactorisedDotProductBlock", "factorised_dot_product"),
    ],
)
def test_a_blocks_attention_is_its_models(module, name):
    assert ROWS[module].attention == ROWS[MODELS[name]].attention


def test_model_2s_blocks():
    assert (ROWS["Block over space"].attention, ROWS["Block over time"].attention) == (4 * 4 * 16**2, 4 * 4**2)


@pytest.mark.parametrize("row", [row for row in rows() if row.pattern], ids=lambda row: row.module)
def test_patterns_lose_no_axis(row):
    for pattern in row.pattern.split(";"):
        before, after = pattern.split("->")
        assert set(re.findall(r"\w+", before)) == set(re.findall(r"\w+", after))
