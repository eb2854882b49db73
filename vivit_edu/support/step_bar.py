"""A second bar of progress, for epochs that take minutes: it counts steps, and says how long the run will take."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch.optim import AdamW
from torch.optim.optimizer import register_optimizer_step_post_hook

if TYPE_CHECKING:
    from tqdm import tqdm

HIDDEN_FOR = 10  # seconds without it: a short run needs none


@contextmanager
def steps_shown(total: int, *, wanted: bool = True) -> Iterator["tqdm"]:
    """Within it, the steps that AdamW makes are counted in a bar below that of the epochs, with the time left.

    Every recipe has an AdamW; with Muon it makes a step after it. total: steps of the whole run. wanted:
    False shows nothing. It is shown on a terminal only: a log would get a line for every step.
    """
    from tqdm.auto import tqdm

    shown = wanted and sys.stderr is not None and sys.stderr.isatty()
    options = {"desc": "steps", "unit": "step", "position": 1, "leave": False, "delay": HIDDEN_FOR}
    with tqdm(total=total, disable=not shown, **options) as bar:
        hook = register_optimizer_step_post_hook(lambda made, *_: bar.update() if isinstance(made, AdamW) else None)
        try:
            yield bar
        finally:
            hook.remove()
