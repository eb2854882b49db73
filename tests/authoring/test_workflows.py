"""CI: the workflows are sound, and what they run are the scripts that run everywhere else too."""

import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

from vivit_edu.authoring.stamp import STAMP_BEGIN, stamp
from vivit_edu.cli import main, make_parser
from vivit_edu.errors import ConfigError

ROOT = Path(__file__).parents[2]
WORKFLOWS = [ROOT / ".github" / "workflows" / f"{name}.yml" for name in ("tests", "weekly", "pages")]
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def jobs(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()


def test_each_workflow_is_tested():
    assert sorted((ROOT / ".github" / "workflows").iterdir()) == sorted(WORKFLOWS)


def test_pages_are_deployed_from_main_alone_with_no_more_rights_than_that_takes():
    pages = yaml.safe_load(WORKFLOWS[2].read_text(encoding="utf-8"))
    assert pages[True]["push"] == {"branches": ["main"]} and pages["permissions"] == {"contents": "read"}  # True: "on"
    build, deploy = pages["jobs"].values()
    assert "permissions" not in build and deploy["permissions"] == {"pages": "write", "id-token": "write"}
    uploaded = next(step for step in build["steps"] if "upload-pages-artifact" in step.get("uses", ""))
    assert any(step.get("run") == f"bash .ci/site {uploaded['with']['path']}" for step in build["steps"])


def lint(path):
    """What the two linters say: a schema that one brings along, and the other's audits; neither needs a network."""
    schema = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    audits = [
        shutil.which("zizmor", path=Path(sys.executable).parent) or "zizmor",
        "--offline",
        "--no-progress",
        "--config",
        ROOT / ".github" / "zizmor.yml",
    ]
    return [
        ran.stdout + ran.stderr
        for command in (schema, audits)
        if (ran := subprocess.run([*command, path], capture_output=True, text=True)).returncode
    ]


@each_workflow
def test_linters_find_nothing(path):
    assert lint(path) == []


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("runs-on: ubuntu-latest", "run-on: ubuntu-latest", "run-on"),
        ("timeout-minutes: 40", "timeout-minutes: soon", "soon"),
        ("uses: actions/checkout@v4", "uses: somebody/checkout@main", "unpinned"),
        ("run: bash .ci/notebooks", "run: echo ${{ github.head_ref }}", "template-injection"),
    ],
)
def test_linters_find_what_is_wrong(tmp_path, old, new, told):
    text = WORKFLOWS[0].read_text(encoding="utf-8")
    assert old in text
    broken = tmp_path / ".github" / "workflows" / "broken.yml"
    broken.parent.mkdir(parents=True)
    broken.write_text(text.replace(old, new), encoding="utf-8")
    assert told in "".join(lint(broken))


def test_tests_run_on_three_systems_and_every_python_the_project_names():
    matrix = next(job for job in jobs(WORKFLOWS[0]) if "strategy" in job)["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]


@each_workflow
def test_steps_call_the_scripts_of_ci_and_commands_that_exist(path):
    lines = [line for job in jobs(path) for step in job["steps"] if "run" in step for line in step["run"].splitlines()]
    scripts = re.findall(r"\bbash (\.ci/\w+)", "\n".join(lines))
    assert scripts and all((ROOT / script).is_file() for script in scripts)
    for line in lines:
        ours = re.fullmatch(r"uv run --no-sync vivit-edu (.+)", line)
        assert ours or re.match(r"bash \.ci/|git ", line), line
        if ours:
            make_parser().parse_args(ours[1].split())  # exits where there is no such command or option


@pytest.mark.skipif(sys.platform == "win32", reason="the scripts are read by bash, which Windows has elsewhere")
@pytest.mark.parametrize("script", sorted((ROOT / ".ci").iterdir()), ids=lambda path: path.name)
def test_the_scripts_are_bash(script):
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_ci_runs_the_readmes_test_command():
    (command,) = re.findall(r"## Tests\n\n```bash\n(.*)\n```", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == f'{command} "$@"'


# ---- the line that the weekly run leaves


def test_the_stamp_names_day_and_versions_and_replaces_the_last_one(tmp_path):
    shutil.copy(ROOT / "README.md", tmp_path)
    before = (tmp_path / "README.md").read_text(encoding="utf-8")
    stamp(tmp_path, date(2026, 1, 2))
    line = stamp(tmp_path, date(2026, 1, 9))
    after = (tmp_path / "README.md").read_text(encoding="utf-8")
    import torch

    assert line.startswith("Last ran whole on 2026-01-09, on ") and f"torch {torch.__version__.split('+')[0]}" in line
    assert line in after and "2026-01-02" not in after and "has left no note" not in after
    outside = [re.sub(rf"{STAMP_BEGIN}.*?<!-- end", "", text, flags=re.S) for text in (before, after)]
    assert outside[0] == outside[1]


def test_a_readme_without_its_place_is_not_written(tmp_path):
    (tmp_path / "README.md").write_text("Nothing.", encoding="utf-8")
    with pytest.raises(ConfigError, match="below the map"):
        stamp(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "Nothing."


def test_the_command_stamps(monkeypatch, tmp_path, capsys):
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.setattr("vivit_edu.authoring.stamp.checkout", lambda: tmp_path)
    assert main(["notebooks", "--stamp"]) == 0
    assert capsys.readouterr().out in (tmp_path / "README.md").read_text(encoding="utf-8")
