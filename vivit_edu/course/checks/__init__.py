"""What the checks of all exercises share; predictions and progress are offered here too.

Each chapter's checks are a module next to this one (`ch03.py`, …). A check has the decorator `exercise`, runs what the
reader wrote and raises `CheckFailed` with a message that names the likely mistake. There are three ways to run it:

`examine`   where there is a reference to compare with: it runs the function on several cases and looks at values,
            types, gradients, and at what else has changed. Most checks are one call of it.
`draws`     where the function draws random numbers from a generator that it is given.
`call`      everything else: one call, after which nothing may have changed that was not meant to.

A whole check, of an exercise that asks for `attention_weights(queries, keys)`:

    @exercise
    def check_attention_weights(attention_weights):
        '''04.1: attention_weights(queries [..., M, d], keys [..., N, d]) -> [..., M, N].'''
        examine(
            attention_weights,
            lambda q, k: (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1),
            (drawn(2, 3, 5), drawn(2, 4, 5, seed=1)),  # sizes that differ on every axis, and are not the notebook's
            (drawn(1, 1, 7), drawn(1, 2, 7, seed=1)),  # one clip, one query; a width whose root is not whole
            mistakes={
                "√d is missing": lambda q, k: (q @ k.transpose(-2, -1)).softmax(dim=-1),
                "the softmax runs over the queries": lambda q, k: (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-2),
            },
            what="the weights",
        )
        passed("04.1", "every row adds up to 1.")
"""

from __future__ import annotations

from ..journal import passed, predict, progress, reveal  # noqa: F401  (notebooks take them from here)
from ..ready import ready  # noqa: F401
from .calling import CheckFailed, call, exercise, learns  # noqa: F401
from .comparing import close, drawn, flag, kind, number, pair, same_shape  # noqa: F401
from .examining import draws, examine  # noqa: F401
from .parts import by_parts  # noqa: F401
