"""A training step next to busy processes: what OpenMP's way of waiting costs where a machine is shared.

While torch's threads wait for each other they spin, and on a busy machine they keep the core from the thread that
they wait for. OMP_WAIT_POLICY=PASSIVE lets them sleep. OpenMP reads it once, when torch is loaded, so each setting is
measured in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from statistics import median
from typing import TYPE_CHECKING

from ...errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS_AND_POLICIES = [(threads, policy) for threads in (1, 2) for policy in (None, "PASSIVE")]
NEIGHBOUR = "import time\nend = time.time() + 120\nwhile time.time() < end: pass"  # ends even if nobody ends it
LONGEST = 5  # seconds after which no further step is begun
CHILD = "from vivit_edu.experiments.bench.busy import answer; answer()"


def busy_rows(torch_takes: float, others: int | None = None, repeats: int = 3) -> list[list[str]]:
    """Rows for `bench start`: a training step of the default model, alone and next to `others` busy processes.

    torch_takes: seconds of `import torch`, which the last column is given in. others: four per core if None.
    """
    others = 4 * (os.cpu_count() or 1) if others is None else others
    rows = []
    for threads, policy in THREADS_AND_POLICIES:
        for title, times in zip(("alone", f"{others} busy processes"), step_times(threads, policy, others, repeats)):
            name = f"training step, {title}, {threads} thread{'s' * (threads > 1)}, OMP_WAIT_POLICY {policy or 'unset'}"
            rows.append([name, f"{min(times):.3f}", f"{median(times):.3f}", f"{min(times) / torch_takes:.2f}"])
    return rows


def step_times(
    threads: int, policy: str | None, others: int, repeats: int, child: str = CHILD
) -> tuple[list[float], list[float]]:
    """Seconds of training steps in a new process, alone and next to `others` busy processes; `repeats` of each."""
    names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    command, pipe = [sys.executable, "-c", child, str(threads)], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
    try:
        alone = ask(process, repeats)
        with neighbours(others):
            return alone, ask(process, repeats)
    finally:
        process.kill()
        with suppress(BrokenPipeError):
            process.communicate()


def ask(process: subprocess.Popen, repeats: int) -> list[float]:
    """Has the process make `repeats` steps, or fewer long ones; the seconds of each."""
    try:
        process.stdin.write(f"{repeats}\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())
    except (BrokenPipeError, json.JSONDecodeError) as error:
        raise ConfigError("the process that measures training steps ended early: see its message above") from error


@contextmanager
def neighbours(count: int) -> Iterator[list[subprocess.Popen]]:
    """So many processes that do nothing but keep a core busy."""
    running = []
    try:
        for _ in range(count):
            running.append(subprocess.Popen([sys.executable, "-S", "-c", NEIGHBOUR]))
        yield running
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


def answer() -> None:
    """In the new process: makes the training steps that each line of input asks for and prints their seconds."""
    import torch

    from ...models import build_model
    from ...training import Recipe
    from .steps import make_step

    torch.set_num_threads(int(sys.argv[1]))
    recipe, generator = Recipe.preset("quick"), torch.Generator().manual_seed(0)
    clips = torch.rand(recipe.batch_size, 1, 28, 28, 28, generator=generator)
    model = build_model(recipe.model, **recipe.options)
    step = make_step(model, recipe, clips, torch.arange(recipe.batch_size) % 11)
    step()
    for line in sys.stdin:
        seconds = []
        while len(seconds) < int(line) and sum(seconds) < LONGEST:
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)
