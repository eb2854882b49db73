"""Training steps next to busy processes: each setting in a process of its own, and nothing is left running."""

import io
import json
import os
import textwrap

import pytest
import torch

from vivit_edu.errors import ConfigError
from vivit_edu.experiments.bench import busy, steps

STAND_IN = textwrap.dedent("""
    import json, os, sys
    for turn, line in enumerate(sys.stdin):
        names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")
        print(json.dumps([turn, int(line), sys.argv[1], *(os.environ.get(name) for name in names)]), flush=True)
""")


def test_rows_have_every_setting_alone_and_next_to_others(monkeypatch):
    seconds = {(1, None): 0.5, (1, "PASSIVE"): 0.25, (2, None): 4.0, (2, "PASSIVE"): 0.2}
    asked = []

    def stand_in(threads, policy, others, repeats):
        asked.append((threads, policy, others, repeats))
        fastest = seconds[threads, policy]
        return [0.1, 0.3, 0.2], [3 * fastest, fastest, 2 * fastest]

    monkeypatch.setattr(busy, "step_times", stand_in)
    rows = busy.busy_rows(2.0, others=8)
    assert rows == [
        ["training step, alone, 1 thread, OMP_WAIT_POLICY unset", "0.100", "0.200", "0.05"],
        ["training step, 8 busy processes, 1 thread, OMP_WAIT_POLICY unset", "0.500", "1.000", "0.25"],
        ["training step, alone, 1 thread, OMP_WAIT_POLICY PASSIVE", "0.100", "0.200", "0.05"],
        ["training step, 8 busy processes, 1 thread, OMP_WAIT_POLICY PASSIVE", "0.250", "0.500", "0.12"],
        ["training step, alone, 2 threads, OMP_WAIT_POLICY unset", "0.100", "0.200", "0.05"],
        ["training step, 8 busy processes, 2 threads, OMP_WAIT_POLICY unset", "4.000", "8.000", "2.00"],
        ["training step, alone, 2 threads, OMP_WAIT_POLICY PASSIVE", "0.100", "0.200", "0.05"],
        ["training step, 8 busy processes, 2 threads, OMP_WAIT_POLICY PASSIVE", "0.200", "0.400", "0.10"],
    ]
    assert [ask[2:] for ask in asked] == [(8, 3)] * 4
    asked.clear()
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    busy.busy_rows(2.0)
    assert {ask[2] for ask in asked} == {8}


@pytest.mark.parametrize("policy", [None, "PASSIVE"])
def test_the_new_process_gets_the_setting_and_not_this_ones(policy, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    alone, others = busy.step_times(2, policy, 1, 5, child=STAND_IN)
    assert alone == [0, 5, "2", policy, None] and others == [1, 5, "2", policy, None]


def test_the_neighbours_run_during_the_second_half_only_and_end_whatever_happens(monkeypatch):
    started, ask = [], busy.ask
    popen = busy.subprocess.Popen

    def noted(command, **options):
        started.append(popen(command, **options))
        return started[-1]

    def watched(process, repeats):
        seen.append([p.poll() is None for p in started[1:]])
        return ask(process, repeats)

    seen = []
    monkeypatch.setattr(busy.subprocess, "Popen", noted)
    monkeypatch.setattr(busy, "ask", watched)
    busy.step_times(1, None, 2, 1, child=STAND_IN)
    assert seen == [[], [True, True]] and all(p.poll() is not None for p in started)
    started.clear()
    with pytest.raises(ConfigError, match="ended early"):
        busy.step_times(1, None, 2, 1, child="import sys; sys.stdin.readline(); print([1], flush=True)")
    assert len(started) == 3 and all(p.poll() is not None for p in started)


def test_real_steps_are_timed():
    alone, others = busy.step_times(1, "PASSIVE", 0, 1)
    assert len(alone) == len(others) == 1 and 0 < alone[0] < 60


@pytest.mark.parametrize("seconds, made", [(0.5, 4), (2.0, 3), (60.0, 1)])
def test_long_steps_are_not_repeated_for_long(seconds, made, monkeypatch, capsys):
    """Steps are asked for twice, four each time; no further one is begun after five seconds."""
    clock = [0.0]
    monkeypatch.setattr(busy.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(steps, "make_step", lambda *_: lambda: clock.__setitem__(0, clock[0] + seconds))
    monkeypatch.setattr("sys.stdin", io.StringIO("4\n4\n"))
    monkeypatch.setattr("sys.argv", ["-c", str(torch.get_num_threads())])
    busy.answer()
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [[seconds] * made] * 2
