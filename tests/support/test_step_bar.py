"""The bar that counts steps: on a terminal, from AdamW alone, and no longer than it is asked for."""

import io
import sys

import pytest
import torch

from vivit_edu.support import step_bar
from vivit_edu.support.step_bar import steps_shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def optimisers():
    weights = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    for weight in weights:
        weight.grad = torch.ones(2, 2)
    return torch.optim.Muon(weights[:1], lr=0.1), torch.optim.AdamW(weights[1:], lr=0.1)


def test_on_a_terminal_each_step_of_the_run_is_counted_once_with_the_time_left(optimisers, monkeypatch):
    monkeypatch.setattr(step_bar, "HIDDEN_FOR", 0)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with steps_shown(4) as bar:
        bar.mininterval = 0
        for _ in range(3):
            for optimiser in optimisers:
                optimiser.step()
        assert bar.n == 3
    optimisers[1].step()
    assert bar.n == 3  # afterwards nothing is counted
    assert "steps:" in terminal.getvalue() and " 3/4 [" in terminal.getvalue() and "<00:" in terminal.getvalue()


@pytest.mark.parametrize("kind, wanted", [(io.StringIO, True), (Terminal, False)])
def test_a_log_and_the_other_processes_show_nothing(optimisers, monkeypatch, kind, wanted):
    monkeypatch.setattr(step_bar, "HIDDEN_FOR", 0)
    monkeypatch.setattr(sys, "stderr", stream := kind())
    with steps_shown(2, wanted=wanted):
        optimisers[1].step()
    assert stream.getvalue() == ""


def test_it_waits_before_it_is_shown(optimisers, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with steps_shown(2):
        optimisers[1].step()
    assert "steps:" not in terminal.getvalue()
