"""The project holds together: one list of dependencies, light imports, and a README whose commands run."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOP_LEVEL = {"notebooks", "vivit_edu", "data", "tests", "environment.yml", "README.md", "pyproject.toml", "LICENSE"}


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_conda_installs_the_project_itself_and_lists_nothing_twice():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert [re.split("[<>=]", name)[0] for name in conda] == ["python", "pip"]
    assert conda[0].removeprefix("python") == PROJECT["project"]["requires-python"]
    assert pip == {"pip": ["-e .[notebooks]"]}
    assert "notebooks" in PROJECT["project"]["optional-dependencies"]


def test_resolution_is_reproducible_without_a_lock_file():
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT00:00:00Z", PROJECT["tool"]["uv"]["exclude-newer"])
    assert "uv.lock" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def test_every_import_is_a_declared_dependency():
    declared = {re.split("[<>=]", d)[0].replace("-", "_") for d in PROJECT["project"]["dependencies"]}
    for extra in PROJECT["project"]["optional-dependencies"].values():
        declared |= {re.split("[<>=]", d)[0].replace("-", "_") for d in extra}
    declared |= {
        "sklearn",
        "PIL",
        "IPython",
        "vivit_edu",
        "nbformat",
        "tomllib",
        "docutils",
    }  # parts of declared packages, or ours
    found = set()
    for path in (ROOT / "vivit_edu").rglob("*.py"):
        found |= set(re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(encoding="utf-8"), re.M))
    unknown = found - declared - set(sys.stdlib_module_names)
    assert not unknown


def test_nothing_else_lies_at_the_top():
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


def test_importing_the_package_is_light():
    heavy = ("medmnist", "torchvision", "matplotlib", "sklearn", "ipywidgets", "pandas", "tqdm.notebook")
    code = "import sys, vivit_edu; {}; print([m for m in {} if m in sys.modules])"
    assert python(code.format("'torch' in sys.modules and exit('torch')", heavy)) == "[]\n"
    used = "vivit_edu.build_model, vivit_edu.fit, vivit_edu.load_volumes, vivit_edu.attention_maps"
    assert python(code.format(used, heavy)) == "[]\n"


def test_every_exported_name_is_there():
    import vivit_edu

    for name in vivit_edu.__all__:
        assert getattr(vivit_edu, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vivit_edu.nothing


def test_help_needs_no_torch():
    code = "import sys; from vivit_edu.cli import main\ntry: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    assert python(code).endswith("False\n")


# ---- the README


def readme_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


# What cannot run inside a test, and why it still is known to work.
ELSEWHERE = {
    "git clone": "CI starts from a fresh clone",
    "cd vivit-edu": "the same",
    "python -m pip install uv": ".ci/run begins with it",
    "uv run pytest": "this is it",
    "uv run jupyter lab": "a server that does not end; that it starts is tested below",
    "uv run vivit-edu site": "tests/authoring/test_site.py runs it once and looks at every page",
    "python -m pip install": "an installation; pyproject.toml, which it reads, is what uv installed here",
    "conda env create": "conda is not on the test machine; environment.yml is parsed above",
    "conda activate": "the same",
    "uv run torchrun": "tests/support/test_distributed.py starts two processes by it, with the same command line",
    "uv run vivit-edu bench gpu": "tests/experiments/test_bench_gpu.py runs its rehearsal",
    "uv run vivit-edu ablate": "trains 18 models; tests/experiments/test_ablate.py runs the command on a tiny data set",
    "uv run vivit-edu bench": "takes time to measure; tests/experiments/test_bench.py runs it",
    "uv run vivit-edu train --videos": "needs a folder of videos; tests/datasets/test_video.py makes one and runs the command",
}
RUN_BY = {  # a command's first words -> arguments that make it short enough for a test
    "uv run vivit-edu train": ["--epochs", "1"],
    "uv run vivit-edu pretrain": ["--epochs", "1"],
    "uv run vivit-edu data": [],
    "uv run vivit-edu evaluate": [],
    "uv run vivit-edu classroom": [],
    "uv run vivit-edu explain": [],
}


def known_as(command):
    return next((start for start in (*ELSEWHERE, *RUN_BY) if command.startswith(start)), None)


@pytest.mark.parametrize("command", readme_commands())
def test_every_command_of_the_readme_is_run_or_it_is_said_why_not(command):
    assert known_as(command), f"no test runs {command!r}: add it to ELSEWHERE, with the reason, or to RUN_BY"


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    """vivit-edu commands run here, in one folder, in the README's order, trained for one epoch each. A single test, for
    some go on with what others made. Those on real files run where there are any."""
    from vivit_edu.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIVIT_EDU_DATASET", "organphantom3d")  # also where the real set could be downloaded
    real, ran = os.environ.get("VIVIT_EDU_TEST_DATA"), 0
    for command in readme_commands():
        arguments = shlex.split(command)[3:] + RUN_BY.get(known_as(command), [])
        if known_as(command) in ELSEWHERE or "--root" in arguments and not real:
            continue
        if "--root" in arguments:
            arguments[arguments.index("--root") + 1] = real
        assert main(arguments) == 0, f"{command}: {capsys.readouterr().err}"
        ran += 1
    assert ran > 8


def test_jupyter_lab_is_installed():
    assert subprocess.run([sys.executable, "-m", "jupyterlab", "--version"], capture_output=True).returncode == 0
