"""Chapters run on a real data set that is unlike the phantom: AdrenalMNIST3D has two classes, which have no side, and
neither patients nor masks.

Two chapters stand for those that read `course_volumes()` late in the course. Trainings are cut short and see every
fourth volume, since what is looked for is an error. Needs the real file: see `test_data`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vivit_edu.authoring.masters import read, tags
from vivit_edu.data import data_root

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# chapter -> what makes it shorter: the text of its cells to replace, and whether what comes before the data is left out
CHAPTERS = {"11_regularisation": ({"epochs=64": "epochs=8"}, False), "12_full_training": ({}, True)}
RUN = """
import sys
from dataclasses import replace
import vivit_edu
volumes = vivit_edu.course_volumes()
few = replace(volumes, train=volumes.train.subset(slice(0, None, 4)))
vivit_edu.course_volumes = lambda size=28: few
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for number, source in enumerate(sys.stdin.read().split(chr(0)), 1):
    result = shell.run_cell(source, store_history=False)
    if not result.success:
        sys.exit(f"code cell {number} failed: {result.error_before_exec or result.error_in_exec!r}")
print("RAN WHOLE")
"""


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_runs_on_adrenal_glands(name, test_data, phantom, tmp_path):
    for path in (test_data / "adrenalmnist3d.npz", data_root() / "organphantom3d.npz"):
        if not path.is_file():
            pytest.skip(f"needs {path.name}")
        (tmp_path / path.name).symlink_to(path)
    changes, only_data = CHAPTERS[name]
    cells = [cell.source for _, cell in read(NOTEBOOKS / f"{name}.ipynb").code if "bootstrap" not in tags(cell)]
    if only_data:  # the imports, and everything from the cell on that loads the data
        cells = cells[:1] + cells[next(k for k, source in enumerate(cells) if "course_volumes()" in source) :]
    text = "\0".join(cells)
    for long, short in changes.items():
        assert long in text
        text = text.replace(long, short)
    settings = {
        "VIVIT_EDU_DATASET": "adrenalmnist3d",
        "VIVIT_EDU_DATA": str(tmp_path),
        "VIVIT_EDU_RUNS": str(tmp_path / "runs"),
        "VIVIT_EDU_EPOCHS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MPLBACKEND": "agg",
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    ran = subprocess.run(
        [sys.executable, "-c", RUN],
        input=text,
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0 and "RAN WHOLE" in ran.stdout, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert "adrenalmnist3d" in ran.stdout and "NOT REAL DATA" not in ran.stderr
