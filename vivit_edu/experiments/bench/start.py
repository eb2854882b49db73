"""`vivit-edu bench start`: how long it takes until there is something to see, in new processes each time.

And how long a training step takes on a busy machine, which depends on how torch's threads wait for each other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

import torch

from ...cost import measure
from ...errors import ConfigError
from ...support.places import checkout
from ...volumes import Volumes
from .busy import busy_rows
from .steps import Table

CODE = {
    "bare Python": "",
    "import torch": "import torch",
    "import vivit_edu": "import vivit_edu",
    "import vivit_edu, and all that chapters use": (
        "import vivit_edu; vivit_edu.build_model, vivit_edu.course_volumes, vivit_edu.fit"
    ),
    "vivit-edu --help": "import sys; sys.argv = ['vivit-edu', '--help']; from vivit_edu.cli import main; main()",
}


def start(device: torch.device, volumes: Volumes | None = None, repeats: int = 5) -> Table:
    """Seconds of new processes, of a kernel that runs a chapter's first two code cells, and of steps next to others."""
    runs = {name: lambda code=code: run_python(code) for name, code in CODE.items()}
    runs["kernel, and the imports of chapter 03"] = kernel_start
    seconds = measure(
        runs, torch.device("cpu"), repeats=repeats
    )  # of whole processes: none of them uses this one's GPU
    torch_takes = min(seconds["import torch"])
    rows = [
        [name, f"{min(times):.2f}", f"{median(times):.2f}", f"{min(times) / torch_takes:.2f}"]
        for name, times in seconds.items()
    ]
    return (
        ["", "s, fastest", "s, median", "of import torch"],
        rows + busy_rows(torch_takes) + chapters(torch_takes),
        "Whole processes, taken in turns, the file cache warm. Training steps: the default model on a CPU, a batch of "
        "the preset quick, each setting in a new process. Chapters: as executed last, kernel included.",
    )


def run_python(code: str) -> None:
    """Runs this code in a new Python."""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def kernel_start() -> None:
    """Starts a kernel and runs the first two code cells of chapter 03 in it."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        (path,) = (checkout() / "notebooks").glob("03_*.ipynb")
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in [cell for cell in cells if cell["cell_type"] == "code"][:2]:
            reply = client.execute_interactive("".join(cell["source"]), timeout=120, output_hook=lambda _: None)
            if reply["content"]["status"] != "ok":
                raise ConfigError(f"chapter 03 does not start here: {reply['content'].get('evalue')}")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def chapters(torch_takes: float) -> list[list[str]]:
    """Wall time of every chapter, as noted in it when it was last executed."""
    rows = []
    for path in sorted((checkout() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        seconds = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("vivit_edu", {}).get("seconds")
        if seconds:
            rows.append([f"chapter {path.stem[:2]}", f"{seconds:.1f}", "", f"{seconds / torch_takes:.1f}"])
    return rows
