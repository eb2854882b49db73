"""The shape ledger shows what a chapter adds, and its numbers are those of the modules when they run."""

import re

import pytest
import torch

from vivit_edu import build_model
from vivit_edu.attention import MultiHeadAttention
from vivit_edu.cost import PAPER, attention_pairs
from vivit_edu.course.ledger import COLUMNS, ledger, rows


@pytest.fixture(scope="module")
def table():
    """The rows by module. They are not made while tests are collected, which every process does."""
    return {row.module: row for row in rows()}


def model_row(name, table):
    return dict(zip(PAPER, [row for module, row in table.items() if "(Model" in module]))[name]


def shown(chapter, monkeypatch, since=None):
    """What ledger(chapter, since) displays: {mime type: content}."""
    displays = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: displays.append(bundle))
    ledger(chapter, since)
    (bundle,) = displays
    return bundle


@pytest.mark.parametrize("chapter, since", [(3, None), ("08", None), (5, 3), ("05", "03"), (8, 6)])
def test_it_shows_what_is_new_in_a_chapter_or_in_several(chapter, since, monkeypatch):
    lines = shown(chapter, monkeypatch, since)["text/plain"].splitlines()[1:-1]
    named = [line.split()[0] for line in lines]
    chapters = [f"{n:02d}" for n in range(int(since or chapter), int(chapter) + 1)]
    assert named == [f"{row.chapter:02d}" for row in rows() if f"{row.chapter:02d}" in chapters]
    assert set(named) == set(chapters)


def test_page_and_text_hold_the_same_cells(monkeypatch):
    bundle = shown("05", monkeypatch)
    page = re.sub(r"</?(b|code)>|<wbr>", "", bundle["text/html"]).replace("&nbsp;", " ").replace("&gt;", ">")
    table = [re.findall(r"<t[dh]>(.*?)</t[dh]>", line) for line in re.findall(r"<tr>(.*?)</tr>", page)]
    assert all(len(line) == len(COLUMNS) for line in table)
    for cells, line in zip(table, bundle["text/plain"].splitlines()):
        assert " ".join(cells).split() == line.split()


@pytest.mark.parametrize("chapter", [2, "09"])
def test_a_chapter_that_adds_nothing_says_so(chapter, capsys):
    ledger(chapter)
    assert f"Chapter {int(chapter):02d} adds no module" in capsys.readouterr().out


def test_the_courses_sizes(table):
    tubelets, attention = table["TubeletEmbedding"], table["MultiHeadAttention"]
    assert (tubelets.given[1:], tubelets.made[1:], tubelets.tokens) == ((1, 28, 28, 28), (4, 16, 128), 64)
    assert tubelets.parameters == 343 * 128 + 128 and tubelets.attention == 0
    assert table["FrameEmbedding"].parameters == 49 * 128 + 128
    assert table["learned_positions"].parameters == 64 * 128 and table["prepend_cls"].made[1:] == (65, 128)
    assert (attention.given[1:], attention.made[1:]) == ((64, 128), (64, 128))
    assert attention.parameters == sum(p.numel() for p in MultiHeadAttention(128, 4).parameters())
    assert attention.attention == 64 * 64 * 4
    assert table["Block over time"].given[1:] == (4, 128)


@pytest.mark.parametrize("name", PAPER)
def test_a_models_row_is_what_the_model_does(name, table):
    row, model = model_row(name, table), build_model(name)
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
def test_a_blocks_attention_is_its_models(module, name, table):
    assert table[module].attention == model_row(name, table).attention


def test_model_2s_blocks(table):
    assert (table["Block over space"].attention, table["Block over time"].attention) == (4 * 4 * 16**2, 4 * 4**2)


def test_patterns_lose_no_axis(table):
    patterns = [(row.module, pattern) for row in table.values() for pattern in row.pattern.split(";") if row.pattern]
    assert len(patterns) > 8
    for module, pattern in patterns:
        before, after = pattern.split("->")
        assert set(re.findall(r"\w+", before)) == set(re.findall(r"\w+", after)), module
