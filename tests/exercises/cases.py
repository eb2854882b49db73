"""Tests of an exercise's check: solutions that must pass, and wrong ones that it must see through."""

import subprocess
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import pytest

from vivit_edu.course.checks import CheckFailed, ch12


@contextmanager
def resumed_here():
    """The check of 12.6 goes on in this process, by the same steps with the same carried bytes: a new one takes 4 s."""

    def run(command, **_):
        ch12.resume_there(command[-1])
        return SimpleNamespace(returncode=0)

    here = SimpleNamespace(run=run, SubprocessError=subprocess.SubprocessError)
    with mock.patch.object(ch12, "subprocess", here):
        yield


def run_cases(check, *, right, wrong):
    """A parametrised test of `check`, to be assigned to a name that starts with `test_`.

    right: at least three right solutions, written differently. wrong: at least ten of {what the learner got
    wrong: (solution, regex that the message must match)}, written as learners write.
    """
    assert len(right) >= 3, "a check must accept more than one way of writing the solution"
    assert len(wrong) >= 10, "try at least ten mistakes that learners make"
    cases = [pytest.param(solution, None, id=f"right: {solution.__name__}") for solution in right]
    cases += [pytest.param(solution, regex, id=f"wrong: {name}") for name, (solution, regex) in wrong.items()]

    @pytest.mark.parametrize("solution, regex", cases)
    def test(solution, regex, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)  # the progress file
        if regex is None:
            check(solution)
            assert "Passed" in capsys.readouterr().out
        else:
            with pytest.raises(CheckFailed, match=regex):
                check(solution)
            assert "Passed" not in capsys.readouterr().out

    return test
