"""The project holds together: one list of dependencies, light imports, and a README whose commands run."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import replace
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
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    tried = next(job["strategy"]["matrix"]["python"] for job in workflow["jobs"].values() if "strategy" in job)
    newest = max(int(version.removeprefix("3.")) for version in tried)  # conda has newer ones, which nobody tried
    assert conda[0] == f"python{PROJECT['project']['requires-python']},<3.{newest + 1}"
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
        "transformers",  # chapter 05 compares with it where it is installed
        "vit_pytorch",  # chapters 06 and 07, likewise
    }  # parts of declared packages, or ours
    found = set()
    for path in (ROOT / "vivit_edu").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
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
    code = "import sys; from vivit_edu.cli import main\ntry: main(['--help'])\n"
    code += "except SystemExit: print('torch' in sys.modules)"
    assert python(code).endswith("False\n")


# ---- the README


def readme_commands():
    """Of the README, then of the page to which it leaves the others."""
    text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".github/COMMANDS.md"))
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


# What cannot run inside a test, and why it still is known to work.
ELSEWHERE = {
    "git clone": "CI starts from a fresh clone, and .ci/run begins with the rest of this line",
    "uv run pytest": "this is one of its tests",
    "uv run jupyter lab": "a server that does not end; that it starts is tested below",
    "uv run vivit-edu site": "tests/authoring/test_site.py runs it once and looks at every page",
    "python -m pip install": "an installation; pyproject.toml, which it reads, is what uv installed here",
    "conda env create": "conda is not on the test machine; environment.yml is parsed above",
    "conda activate": "the same",
    "uv run torchrun": "tests/support/test_distributed.py starts two processes by it, with the same command line",
    "uv run vivit-edu ablate": "trains 18 models; tests/experiments/test_ablate.py runs the command on a tiny data set",
    "uv run vivit-edu bench": "takes time to measure; tests/experiments/test_bench.py runs its parts",
    "uv run vivit-edu predict": "needs files; tests/experiments/test_predicting.py makes some and runs the command",
    "uv run vivit-edu records": "trains for minutes; tests/experiments/test_repeats.py runs it on a tiny table",
    "uv run vivit-edu train --videos": "needs videos; tests/datasets/test_video.py makes some and runs the command",
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


def test_what_is_said_of_commands_is_about_commands_that_are_there():
    used = {known_as(command) for command in readme_commands()}
    assert used == {*ELSEWHERE, *RUN_BY}


@pytest.mark.parametrize("command", readme_commands())
def test_every_command_of_the_readme_is_run_or_it_is_said_why_not(command):
    assert known_as(command), f"no test runs {command!r}: add it to ELSEWHERE, with the reason, or to RUN_BY"


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    """vivit-edu commands run here, in one folder, in the README's order, trained for one epoch each on a tenth of the
    clips. A single test: some go on with what others made. Those on real files run where there are any."""
    from vivit_edu import data
    from vivit_edu.cli import main
    from vivit_edu.datasets import phantom

    def few(load):
        def load_few(*arguments):
            volumes, some = load(*arguments), slice(None, None, 10)
            return replace(volumes, train=volumes.train.subset(some), test=volumes.test.subset(some))

        return load_few

    monkeypatch.setattr(phantom, "load_phantom", few(phantom.load_phantom))
    monkeypatch.setattr(data, "load_medmnist", few(data.load_medmnist))
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


DOCUMENTS = ["README.md", "data/README.md", "notebooks/results/benchmarks.md"]
DOCUMENTS += [f".github/{path.name}" for path in sorted((ROOT / ".github").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_exists(document):
    """Tests, modules, scripts and results by their path from the top, and links from where the document is."""
    text = (ROOT / document).read_text(encoding="utf-8")
    # CONTRIBUTING's chapter to be written
    example = {f"vivit_edu/course/{room}/ch15.py" for room in ("checks", "ready")} | {"notebooks/15_name.ipynb"}
    named = set(re.findall(r"(?<![\w/.])(?:tests|vivit_edu|notebooks|\.ci|\.github)/[\w./]*\w", text)) - example
    assert not [path for path in named if not (ROOT / path).exists()]
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert not [link for link in links if not ((ROOT / document).parent / link).exists()]


def test_the_documents_name_what_they_are_for():
    """The paths above are really found: a promise names its test, and the README leads to the other documents."""
    assert "tests/support/test_killed.py" in (ROOT / "notebooks/results/benchmarks.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for document in ("data/README.md", "notebooks/results/benchmarks.md", *DOCUMENTS[3:]):
        assert f"]({document})" in readme
    assert len(readme.split()) <= 900


def test_promises_are_few_and_each_names_a_test_that_there_is():
    text = (ROOT / "notebooks/results/benchmarks.md").read_text(encoding="utf-8")
    table = text.split("## What is promised")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert 5 <= len(rows) <= 10 and not [promise for promise, _ in rows if len(promise.split()) > 30]
    for promise, tests in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
        assert named and tests.count("`") == 2 * len(named), promise
        for path, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.M), f"{path}::{test}"


def test_the_recipe_of_a_check_is_one(capsys):
    """The example in CONTRIBUTING accepts a right answer and names the mistake of a wrong one."""
    from vivit_edu.course.checks import ch03

    text = (ROOT / ".github/CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(@exercise\ndef check_row_means.*?)```", text, re.S)
    names = vars(ch03).copy() | {"passed": lambda *_: print("passed")}
    exec(code, names)
    names["check_row_means"](lambda z: z.mean(dim=-1))
    assert capsys.readouterr().out == "passed\n"
    for wrong, says in (
        (lambda z: z.mean(dim=1), "over the tokens"),
        (lambda z: z.sum(dim=-1), "divide it by D"),
        (lambda z: z.detach().mean(dim=-1), "gradient"),
    ):
        with pytest.raises(ch03.CheckFailed, match=says):
            names["check_row_means"](wrong)


def test_hooks_check_python_and_empty_exercise_notebooks():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}
    assert set(hooks) == {"ruff-check", "ruff-format", "nbstripout"}
    assert all(hook["entry"].startswith("uv run ") and hook["language"] == "system" for hook in hooks.values())
    tools = {hook["entry"].split()[2] for hook in hooks.values()}
    assert tools <= {re.split("[<>=]", d)[0] for d in PROJECT["dependency-groups"]["dev"]}
    pattern = re.compile(hooks["nbstripout"]["files"])
    everything = [path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").rglob("*")]
    assert {path for path in everything if pattern.search(path) and "checkpoints" not in path} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks" / "exercises").glob("*.ipynb")
    }
    assert not pattern.search("docs/notebooks/exercises/a.ipynb") and not pattern.search(
        "notebooks/exercises/a.ipynb.txt"
    )


def test_the_hook_for_notebooks_changes_nothing_that_is_committed(tmp_path):
    exercises = sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))
    copies = [tmp_path / path.name for path in exercises]
    for path, copy in zip(exercises, copies):
        copy.write_bytes(path.read_bytes())
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (entry,) = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"] if hook["id"] == "nbstripout"]
    subprocess.run([sys.executable, "-m", *entry.split()[2:], *map(str, copies)], check=True)
    assert [copy.name for path, copy in zip(exercises, copies) if copy.read_bytes() != path.read_bytes()] == []
