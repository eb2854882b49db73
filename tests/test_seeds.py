"""What a test draws without a generator of its own is the same each time, whichever tests ran before it."""

import random

import numpy as np
import pytest
import torch

from tests.conftest import seed


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


AT_IMPORT = draw()


@pytest.fixture(scope="module")
def shared():
    return draw()


def test_a_test_begins_with_its_own_seed(request, shared):
    drawn = draw()
    seed(request.node.nodeid)
    assert drawn == draw()


def test_so_do_fixtures_and_files(request, shared):
    drawn = draw()
    seed("shared")
    assert shared == draw()
    seed(request.node.nodeid.split("::")[0])
    assert AT_IMPORT == draw()
    assert len({drawn, shared, AT_IMPORT}) == 3, "what should be independent is not the same numbers"


def test_another_number_draws_everything_anew(request, monkeypatch):
    drawn = draw()
    monkeypatch.setenv("VIVIT_EDU_TEST_SEED", "1000")
    seed(request.node.nodeid)
    assert not set(drawn) & set(draw())
