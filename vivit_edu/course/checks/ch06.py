"""Checks of chapter 06: time folded into the batch, a detector of mixed-up clips, Model 2 and its parts, what the order
of frames changes, and the test of an explanation.

Modules are checked as in chapter 05, with the parts that the reader's module owns and with the package's model.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from itertools import permutations
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ...embedding import init_projection
from ...models import build_model
from ..ready import ch06 as finished
from . import CheckFailed, call, close, drawn, examine, exercise, flag, kind, passed, same_shape
from .calling import call_with_hints
from .parity import (
    CLASSES,
    CLIP,
    DEPTH,
    DIM,
    GRID,
    HEADS,
    MLP_DIM,
    TUBELET,
    as_convolution,
    built_module,
    check_double,
    check_head_count,
    check_norm,
    check_reached,
    check_train_mode,
    check_width,
    fill_large,
    heads_of,
    linears_of,
    named_as_package,
    part_of,
    projections,
    say_difference,
)

# Sizes that differ on every axis, and none of which is the notebook's
COUNT, TEMPORAL_DEPTH = 5, 2
POOLS = ("mean", "cls")


# ---- 06.1


@exercise
def check_encode_frames(encode_frames: Callable) -> None:
    """06.1: encode_frames(encoder, tokens [B, nt, S, D]) -> [B, nt, D], each time index encoded on its own."""

    def run(fold, unfold):  # folded in one way, unfolded in another
        def mistake(encoder, z):
            sizes = dict(zip("bts", z.shape))
            names = {name: size for name, size in sizes.items() if name in unfold.split("->")[0]}
            return rearrange(encoder(rearrange(z, f"b t s d -> {fold}")), f"{unfold}", **names)

        return mistake

    strangers = (
        "the vectors come back in a wrong order, so that clips are mixed up: fold and unfold must name the batch first "
        'in both, "(b nt)"'
    )
    examine(
        encode_frames,
        finished.encode_frames,
        (_sum_up, drawn(2, 3, 4, 5)),
        (_sum_up, drawn(1, 5, 2, 3)),
        (_sum_up, drawn(3, 1, 6, 4)),
        mistakes={
            strangers: run("(t b) s d", "(b t) d -> b t d"),
            strangers + "; here only the unfolding does not": run("(b t) s d", "(t b) d -> b t d"),
            "time indices see each other: time stayed in the sequence, but it belongs in the batch, "
            '"(b nt) s d"': lambda e, z: e(z.flatten(1, 2)),
            "space and time are exchanged: the encoder got the nt tokens of one place, but each of its sequences must "
            "be the S tokens of one time index": run("(b s) t d", "(b s) d -> b s d"),
            "the tokens were shuffled on the way: a reshape or view keeps the order in memory and moves no axis": (
                lambda e, z: e(z.transpose(1, 2).reshape(-1, *z.shape[2:])).view(*z.shape[:2], -1)
            ),
            "nothing was encoded: these are the mean tokens; call encoder(folded)": lambda e, z: z.mean(dim=2),
            "the tokens were averaged before the encoder: give it all S tokens": lambda e, z: e(
                z.mean(dim=2, keepdim=True).flatten(0, 1)
            ).view(*z.shape[:2], -1),
            "b is the number of clips, b=len(tokens), not that of time indices": lambda e, z: e(z.flatten(0, 1)).view(
                z.shape[1], z.shape[0], -1
            ),
            "time is still folded into the batch: unfold it": lambda e, z: e(z.flatten(0, 1)),
            "time is gone: the vectors were averaged, but the temporal encoder needs all of them": lambda e, z: (
                e(z.flatten(0, 1)).unflatten(0, z.shape[:2]).mean(dim=1)
            ),
            "every time index got the vector of the first one": lambda e, z: e(z[:, 0])[:, None].expand(
                -1, z.shape[1], -1
            ),
        },
        errors={"takes sequences": "fold the time indices into the batch first"},
        what="the frame vectors",
    )
    passed("06.1", "each time index is encoded on its own, and each vector comes back to its clip and its time.")


def _filled(module, std=0.4):
    """The module, with large random weights."""
    fill_large(module, std)
    return module.eval()


def _sum_up(z):
    """An encoder [B, N, D] -> [B, D] that shows every mistake: it depends on each token and its place, not linearly."""
    if z.ndim != 3:
        raise ValueError(f"the encoder takes sequences [batch, S, D], got {list(z.shape)}")
    places = torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device)[:, None]
    return torch.tanh(z + 0.5 * z.cumsum(dim=1) - 0.3 * z.flip(1).cumsum(dim=1).square()).mul(places).mean(dim=1)


# ---- 06.2


@exercise
def check_depends_on_mates(depends_on_mates: Callable) -> None:
    """06.2: depends_on_mates(model, clips) -> bool, tried on models that mix the clips of a batch and on some that do
    not."""
    few = torch.randint(1, 256, (3, 1, 2, 3, 3), generator=torch.Generator().manual_seed(0)) / 256
    four = torch.cat((few, 1 - few[:1]))
    many = torch.cat((four, four.roll(1, dims=3)[:3] / 2))
    for clips in (four, few, many):
        answers = [_answer(depends_on_mates, model, clips) for model, *_ in (*INNOCENT, *GUILTY)]
        right = [False] * len(INNOCENT) + [True] * len(GUILTY)
        if answers == [not answer for answer in right]:
            raise CheckFailed("the answer is the wrong way round: True means that a clip's logits depend on its mates")
        if len(set(answers)) == 1:
            raise CheckFailed(f"your detector says {answers[0]} of every model, whether it mixes up clips or not")
        for answer, truth, (_, what, hint) in zip(answers, right, (*INNOCENT, *GUILTY)):
            if answer != truth:
                did = "overlooked" if truth else "was fooled by"
                raise CheckFailed(f"with {len(clips)} clips, your detector {did} {what}. {hint}")
    for model, what, _ in INNOCENT:  # a batch of one has no mates
        if _answer(depends_on_mates, model, few[:1]):
            raise CheckFailed(f"with a single clip, your detector was fooled by {what}: that clip has no mates")
    hints = {"left in another mode": "`train()` alone switches to train mode: train(mode), with the mode from before"}
    call_with_hints(hints, depends_on_mates, copy.deepcopy(INNOCENT[0][0]).eval(), few)
    passed("06.2", f"right about {len(INNOCENT)} models that keep clips apart and {len(GUILTY)} that mix them.")


def _answer(detector, model, clips):
    """What a detector says about a model in train mode."""
    hints = {
        "more than 1 value per channel when training": "that is BatchNorm: put the model into eval mode first",
        "a model takes clips": "a single clip of a batch is clips[i : i + 1], which keeps the batch axis",
    }
    return flag(call_with_hints(hints, detector, copy.deepcopy(model).train(), clips), "the answer")


class _PerClip(nn.Module):
    """Innocent: a linear map of each clip, in numbers so round that no order of sums changes a digit."""

    def __init__(self, mix: Callable | None = None, dropout: float = 0.0, norm: bool = False, size: float = 1.0):
        super().__init__()
        self.linear, self.dropout = nn.Linear(18, 3), nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(3) if norm else nn.Identity()
        generator = torch.Generator().manual_seed(3)
        for parameter in self.linear.parameters():
            parameter.data = torch.randint(-4, 5, parameter.shape, generator=generator).float()
        self.mix, self.size = mix, size

    def forward(self, clips):
        if clips.ndim != 5:
            raise ValueError(f"a model takes clips [B, C, T, H, W], got {list(clips.shape)}")
        logits = self.norm(self.linear(self.dropout(clips.flatten(1))))
        return self.size * (logits if self.mix is None else self.mix(logits))


class _WrongFold(_PerClip):
    def forward(self, clips):
        frames = rearrange(clips, "b c t h w -> (b t) c h w")
        return super().forward(rearrange(frames, "(t b) c h w -> b c t h w", b=len(clips)))


def _rounds(y):
    return y + 1e-6 * len(y) * y.abs().max()


def _attend(y):
    return F.scaled_dot_product_attention(y / 10, y / 10, y)


def _look(step, share=1.0):
    """Each clip takes something of the one `step` places before it, or after it where step < 0; at the edge none."""

    def mix(y):
        others = torch.zeros_like(y)
        if 0 < step < len(y):
            others[step:] = y[:-step]
        elif -len(y) < step < 0:
            others[:step] = y[-step:]
        return y + share * others

    return mix


def _look_in_pairs(y):
    partner = torch.arange(len(y)) ^ 1  # 0 with 1, 2 with 3; the last of an odd number is alone
    return torch.stack([row + (y[k] if k < len(y) else 0) for row, k in zip(y, partner)])


def _first_looks(y):
    return torch.cat((y[:1] + y[1:].sum(dim=0), y[1:]))


def _last_looks(y):
    return torch.cat((y[:-1], y[-1:] + y[:-1].sum(dim=0)))


EACH = "Compare each clip alone, clips[i:i+1], with the same clip in the batch."
ALL = "Compare every clip of the batch with itself alone, not only one of them."
SCALE = (
    "Rounding changes logits by about a millionth of their size, a leak by much more: compare the largest difference "
    "with the largest logit, and draw the line at a thousandth"
)
INNOCENT = (
    (_PerClip(), "a model in which each clip has its own logits", EACH),
    (
        _PerClip(dropout=0.5),
        "dropout, which draws other numbers in each pass",
        "Put the model into eval mode, and afterwards back into the mode it was in.",
    ),
    (
        _PerClip(norm=True),
        "BatchNorm, which mixes clips only in train mode",
        "Put the model into eval mode, and afterwards back into the mode it was in.",
    ),
    (_PerClip(_rounds), "rounding", f"{SCALE}."),
    (_PerClip(_rounds, size=1e4), "rounding in a model with logits of 100,000", f"{SCALE}."),
)
GUILTY = (
    (
        _PerClip(_attend),
        "attention over the batch axis",
        "Shuffling the batch does not show it, since attention treats clips as a set: take the mates away.",
    ),
    (_PerClip(lambda y: y - y.mean(dim=0)), "a model that subtracts the mean of the batch", EACH),
    (_WrongFold(), "time indices that come back to the wrong clips", EACH),
    (
        _PerClip(_look(1)),
        "a model in which each clip looks at the one before, so that the first is undisturbed",
        ALL,
    ),
    (_PerClip(_look(-1)), "a model in which each clip looks at the next one, so that the last is undisturbed", ALL),
    (_PerClip(_look(2)), "a model in which clip i looks at clip i-2, so that the first two are undisturbed", ALL),
    (_PerClip(_look_in_pairs), "a model in which clips 0 and 1 look at each other, and so do 2 and 3", EACH),
    (_PerClip(_first_looks), "a model in which only the first clip is disturbed", ALL),
    (_PerClip(_last_looks), "a model in which only the last clip is disturbed", ALL),
    (_PerClip(_look(1, share=0.01)), "a leak: one hundredth of the logits of the clip before", f"{SCALE}."),
    (_PerClip(_look(-1, share=0.01), size=1e-4), "a leak of one hundredth between logits of 0.001", f"{SCALE}."),
)


# ---- 06.3


@exercise
def check_sequence_encoder(SequenceEncoder: Callable) -> None:
    """06.3: SequenceEncoder(count, dim, depth, heads, mlp_dim, pool, std) maps sequences to vectors [B, D]."""
    late = {"must match": "the cls token comes first, and the positions are added to all 1 + N tokens"}
    for pool in ("cls", "mean"):
        encoder = built_module(SequenceEncoder, COUNT, DIM, DEPTH, HEADS, MLP_DIM, pool, 0.7)
        _check_encoder(encoder, f'SequenceEncoder(…, pool="{pool}")', COUNT, DEPTH, pool)
        long = built_module(SequenceEncoder, 50, DIM, 1, HEADS, MLP_DIM, pool, 0.7)
        _check_spread(long.positions, 0.7, "the positions")
        fill_large(encoder)
        for z in (drawn(4, COUNT, DIM, seed=2), drawn(1, COUNT, DIM, seed=3)):
            with torch.no_grad():
                _compare_encoder(call_with_hints(late if pool == "cls" else {}, encoder.forward, z), encoder, z)
        check_train_mode(encoder, z)
        check_double(encoder, z)
        check_reached(encoder, z)
    small = built_module(SequenceEncoder, 50, DIM, 1, HEADS, MLP_DIM)
    _check_spread(small.positions, 0.02, "without further arguments the positions")
    passed("06.3", "positions, blocks and the last LayerNorm, and one vector from the cls token or from the mean.")


def _check_encoder(encoder, name, count, depth, pool):
    """The parts of a SequenceEncoder: blocks, norm, positions, cls."""
    blocks = getattr(encoder, "blocks", None)
    if isinstance(blocks, (list, tuple)):
        raise CheckFailed(
            f"`blocks` of {name} is a plain list: the module does not see the parameters in it. Use nn.ModuleList"
        )
    part_of(encoder, "blocks")
    if (different := len({id(block) for block in blocks})) != depth:
        if different < len(blocks):
            raise CheckFailed(f"`blocks` of {name} holds one block several times: make a new EncoderBlock for each")
        argument = "temporal_depth" if name == "`time`" else "depth"
        said = f"{different} block{'' if different == 1 else 's'}"
        raise CheckFailed(f"with {argument}={depth}, {name} has {said}: hand on `{argument}`")
    for block in blocks:
        _check_block(block, name)
    check_norm(part_of(encoder, "norm"), "norm", DIM)
    cls = getattr(encoder, "cls", "missing")
    shapes = {"positions": [1, count + (pool == "cls"), DIM]}
    if pool == "cls":
        shapes["cls"] = [1, 1, DIM]
    elif cls is not None:
        raise CheckFailed(f'with pool="mean", `cls` of {name} is not None: hand on `pool`, and set self.cls = None')
    if pool == "cls" and cls is None:
        raise CheckFailed(f'with pool="cls", {name} has no cls token: hand on `pool`, and give `cls` zeros [1, 1, dim]')
    for part, shape in shapes.items():
        value = getattr(encoder, part, None)
        if not isinstance(value, nn.Parameter):
            found = "missing" if value is None else kind(value)
            raise CheckFailed(f"`{part}` of {name} is {found}: expected nn.Parameter(…) of shape {shape}")
        if list(value.shape) != shape:
            more = ", one for each token and one for the cls token" if "cls" in shapes and part == "positions" else ""
            raise CheckFailed(f"`{part}` of {name} has shape {list(value.shape)}, expected {shape}{more}")
    if cls is not None and cls.any():
        raise CheckFailed(f"`cls` of {name} does not start at zero: nn.Parameter(torch.zeros(1, 1, dim))")


def _check_block(block, name):
    """A block's number of heads and the width of its MLP."""
    check_head_count(part_of(block, "attention"), f"a block of {name}")
    check_width(part_of(block, "mlp"), f"a block of {name}")


def _check_spread(positions, std, what):
    """positions: a few hundred numbers, of which no honest draw is further off than this allows."""
    spread = positions.detach().std().item()
    if not 0.7 * std < spread < 1.4 * std:
        raise CheckFailed(
            f"{what} start with a standard deviation of {spread:.2g}, expected {std}: draw them as std * torch.randn(…)"
        )


def _compare_encoder(found, encoder, z):
    cls, positions, blocks, norm = encoder.cls, encoder.positions, list(encoder.blocks), encoder.norm

    def run(z, *, positions=positions, blocks=blocks, norm=norm, front=True):
        z = torch.cat((cls.expand(len(z), -1, -1), z), dim=1) if cls is not None and front else z
        z = z + positions
        for block in blocks:
            z = block(z)
        return norm(z)

    def read(z):
        return z.mean(dim=1) if cls is None else z[:, 0]

    def same(z):
        return z

    tokens = run(z)
    if cls is None:
        mistakes = {"the vector is that of the first token: there is no cls token here, take the mean": tokens[:, 0]}
    else:
        copies = cls.expand(len(z), -1, -1)
        mistakes = {
            "the cls token comes last: put it in front": (
                lambda: run(torch.cat((z, copies), dim=1), front=False)[:, -1]
            ),
            "the cls token comes last, but the first token is read: put it in front": (
                lambda: run(torch.cat((z, copies), dim=1), front=False)[:, 0]
            ),
            "the cls token got no position, and the others one too few": lambda: read(
                run(torch.cat((copies, z + positions[:, 1:]), dim=1), positions=0, front=False)
            ),
        }
    close(
        found,
        read(tokens),
        mistakes
        | {
            "the mean of all tokens is read: with a cls token, take that one": tokens.mean(dim=1),
            "the last token is read: the cls token is the first": tokens[:, -1],
            "the positions are not used": lambda: read(run(z, positions=0)),
            "the last LayerNorm is missing: normalise after the last block": lambda: read(run(z, norm=same)),
            "the LayerNorm follows every block: it comes once, after the last": lambda: read(
                run(z, blocks=[step for block in blocks for step in (block, norm)], norm=same)
            ),
            "the LayerNorm comes before the blocks: it comes after the last": lambda: read(
                run(z, blocks=[norm, *blocks], norm=same)
            ),
            "the mean is taken first and normalised then: normalise every token, then take the mean": lambda: norm(
                read(run(z, norm=same))
            ),
            "only the first block is used: go through all of them": lambda: read(run(z, blocks=blocks[:1])),
            "no block is used: z = block(z) for each of them": lambda: read(run(z, blocks=[])),
            "only the last block's result counts, since each starts from the same z: z = block(z)": lambda: read(
                run(z, blocks=blocks[-1:])
            ),
            "all tokens are returned: read one vector from them": tokens,
            "the tokens' axis is still there": read(tokens)[:, None],
            "the positions are added after the blocks: add them before, once": lambda: read(
                norm(run(z, positions=0, norm=same) + positions)
            ),
            "the tokens are added up: take their mean": tokens.sum(dim=1),
        },
        what="the vectors",
    )


# ---- 06.4


@exercise
def check_model2(Model2: Callable) -> None:
    """06.4: Model2(clip_shape, tubelet, classes, dim, depth, temporal_depth, heads, mlp_dim, pool, std) maps clips to
    logits, as the package's Model 2 with the same weights does."""
    for pool, temporal_depth in (("mean", TEMPORAL_DEPTH), ("cls", TEMPORAL_DEPTH), ("mean", 0)):
        model = built_module(Model2, CLIP, TUBELET, CLASSES, DIM, DEPTH, temporal_depth, HEADS, MLP_DIM, pool, 0.7)
        _check_model2_parts(model, temporal_depth, pool)
        _check_first_positions(Model2, temporal_depth, pool)
        package = model2_in_the_package(model, CLIP)
        fill_large(model)
        for b in (4, 1):
            clips = drawn(b, *CLIP, seed=b).sigmoid()  # in [0, 1]
            with torch.no_grad():
                expected = _compare_frames(call(model.frames, clips), model, clips)
                _compare_logits(call(model.forward, clips), expected, model)
        _check_calls_frames(model, clips)
        check_train_mode(model, clips)
        package.load_state_dict(_names_in_the_package(model, CLIP))
        with torch.no_grad():
            close(model(clips), package(clips), what="the logits, compared with the package's,", tolerance=1e-4)
        check_double(model, clips)
        check_reached(model, clips)
    passed("06.4", "Model 2, with cls tokens, means or an average over time, gives the package's logits.")


def _check_model2_parts(model, temporal_depth, pool):
    nt, places = GRID[0], GRID[1] * GRID[2]
    for name in ("embedding", "space", "head"):
        part_of(model, name)
    if (grid := tuple(getattr(model.embedding, "grid", ()))) != GRID:
        raise CheckFailed(f"`embedding` has a grid of {grid}, not {GRID}: TubeletEmbedding(clip_shape, dim, tubelet)")
    if not callable(getattr(model, "frames", None)):
        raise CheckFailed("the model has no method `frames`, which returns one vector per time index, [B, nt, D]")
    if not isinstance(model.head, nn.Linear) or (model.head.in_features, model.head.out_features) != (DIM, CLASSES):
        raise CheckFailed(f"`head` must be nn.Linear(dim, classes), with dim={DIM} and classes={CLASSES}: {model.head}")
    if model.head.bias is None:
        raise CheckFailed("`head` has no bias: nn.Linear(dim, classes)")
    _check_encoder(model.space, "`space`", places, DEPTH, pool)
    if not temporal_depth:
        if getattr(model, "time", "missing") is not None:
            raise CheckFailed("with temporal_depth=0 there is no temporal encoder: set self.time = None")
    else:
        if set(model.space.parameters()) & set(part_of(model, "time").parameters()):
            raise CheckFailed("`space` and `time` share weights: make two SequenceEncoders")
        _check_encoder(part_of(model, "time"), "`time`", nt, temporal_depth, pool)


def _check_calls_frames(model, clips):
    """Model 2's subclasses change `frames`, so `forward` has to call it."""
    logits, frames = model(clips), model.frames
    with mock.patch.object(model, "frames", lambda *given, **more: torch.zeros_like(frames(*given, **more))):
        bypassed = torch.equal(model(clips), logits)
    if bypassed:
        raise CheckFailed(
            "`forward` does not call self.frames(clips), so a subclass with other frame vectors would change nothing"
        )


def _check_first_positions(Model2, temporal_depth, pool):
    """How the positions are drawn, in a model with 30 time indices of 30 tokens."""
    clip = (CLIP[0], 30 * TUBELET[0], 5 * TUBELET[1], 6 * TUBELET[2])
    model = built_module(Model2, clip, TUBELET, CLASSES, DIM, 1, min(temporal_depth, 1), HEADS, MLP_DIM, pool, 0.7)
    if temporal_depth:
        _check_spread(model.time.positions, 0.7, "with std=0.7 the temporal positions")
    _check_spread(model.space.positions, 0.02, "with std=0.7, which is for time only, the positions in space")


def _compare_frames(frames, model, clips):
    """What `frames` returned with what it should, which is returned."""
    tokens = model.embedding(clips)  # [B, nt, S, D]
    shuffled = rearrange(model.space(tokens.flatten(0, 1)), "(t b) d -> b t d", b=len(clips))
    expected = finished.encode_frames(model.space, tokens)
    close(
        frames,
        expected,
        {
            "the time indices come back to the wrong clips: unfold as you folded": shuffled,
            "time is gone: `frames` returns one vector per time index": expected.mean(dim=1),
            "these are the tokens: encode each time index with `space`": tokens,
            "these are the vectors after the temporal positions: `frames` returns them before": lambda: (
                expected + model.time.positions
            ),
            "the positions in space are added to the tokens, although `space` adds them itself": lambda: (
                finished.encode_frames(model.space, tokens + model.space.positions)
            ),
        },
        what="what `frames` returns",
    )
    return expected


def _compare_logits(logits, mixed, model):
    average = model.head(mixed.mean(dim=1))
    over_time = average if model.time is None else model.head(model.time(mixed))
    same_shape(logits, over_time, "the model's logits")
    mistakes = {
        "the temporal encoder is not used: it relates the frame vectors": average,
        "the temporal positions are added twice: `time` adds them itself": lambda: model.head(
            model.time(mixed + model.time.positions[:, -mixed.shape[1] :])
        ),
        "a softmax follows the head: F.cross_entropy takes logits and applies it itself": over_time.softmax(dim=-1),
        "the temporal encoder works over the batch: the clips of a batch must not meet": lambda: model.head(
            model.time(mixed.transpose(0, 1).reshape(mixed.shape))
        ),
        "the vectors of the last time index alone are read: average over time": model.head(mixed[:, -1]),
        "the vectors of the first time index alone are read: average over time": model.head(mixed[:, 0]),
    }
    if model.time is None:
        mistakes.pop("the temporal encoder is not used: it relates the frame vectors")
    close(logits, over_time, mistakes, what="the logits")


# ---- 06.5


@exercise
def check_order_effect(order_effect: Callable) -> None:
    """06.5: order_effect(model, clips, pt) -> the largest change of any logit over all orders of the time indices."""

    def over(orders, measure=None, cut=None, whole=slice(None)):
        def mistake(model, clips, pt):
            pieces = torch.stack(clips.split(cut(clips, pt) if cut else pt, dim=2))
            logits = model(clips)
            changes = [
                model(torch.cat([pieces[i] for i in order], dim=2)) - logits for order in orders(range(len(pieces)))
            ]
            change = torch.stack(changes)[:, whole]
            return (change.abs().max() if measure is None else measure(change)).item()

        return mistake

    def again_and_again(model, clips, pt):
        pieces, logits, changes = torch.stack(clips.split(pt, dim=2)), model(clips), []
        for order in permutations(range(len(pieces))):
            pieces = pieces[list(order)]
            changes.append((model(torch.cat([*pieces], dim=2)) - logits).abs().max())
        return max(changes).item()

    def turned(k):
        return [[*k[i:], *k[:i]] for i in k]

    def neighbours(k):
        return [[*k[:i], k[i + 1], k[i], *k[i + 2 :]] for i in k[:-1]]

    cases = [
        (_Ordered(336, 5, 8, 2, 4), drawn(3, 5, 8, 2, 4, seed=337), 2),
        (_Ordered(2, 1, 4, 2, 3), drawn(3, 1, 4, 2, 3, seed=1), 1),
        (_Ordered(1, 1, 6, 2, 3), drawn(1, 1, 6, 2, 3, seed=2), 3),
    ]
    examine(
        order_effect,
        finished.order_effect,
        *cases,
        mistakes={
            "only the reversed order, the last one, counts: try all nt! orders and keep the largest change": over(
                lambda k: [k[::-1]]
            ),
            "only shifts were tried, 1 2 0 and 2 0 1: try all nt! orders": over(turned),
            "only neighbours were exchanged: try all nt! orders": over(neighbours),
            "the largest change is not taken by its size: use abs, since a logit can fall as well": over(
                permutations, lambda change: change.max()
            ),
            "this is the mean change: take the largest": over(permutations, lambda change: change.abs().mean()),
            "this is the smallest change, that of the order as it is: take the largest": over(
                permutations, lambda change: change.abs().amin()
            ),
            "only the first clip was looked at: take the largest change over all clips": over(
                permutations, whole=slice(0, 1)
            ),
            "only the last clip was looked at: take the largest change over all clips": over(
                permutations, whole=slice(-1, None)
            ),
            "every order starts from the one before it, since the list of pieces is overwritten: keep it as it is": (
                again_and_again
            ),
            "the clips were cut into pieces of nt frames: split takes the length of a piece, pt": over(
                permutations, cut=lambda clips, pt: clips.shape[2] // pt
            ),
            "the changes of all orders are added up: take the largest": over(
                permutations, lambda change: change.abs().amax(dim=(1, 2)).sum()
            ),
            # last, since its 8! orders take a second
            "single frames were reordered, which tears tubelets apart: move stretches of pt frames": over(
                permutations, cut=lambda clips, pt: 1
            ),
        },
        errors={
            part: "cut along time, clips.split(pt, dim=2), and join along it, torch.cat(…, dim=2)"
            for part in ("this model takes", "except in dimension")
        },
        what="the largest change",
        gradients=False,
        dtypes=(),
    )
    _python_number(order_effect, *cases[0])
    bag = call(order_effect, _Bag(), torch.arange(24.0).view(1, 1, 6, 2, 2), 2)
    close(bag, 0.0, what="the effect of order on a model that takes the frames as a set")
    passed("06.5", "the largest change of any logit of any clip, over every order of the time indices.")


def _python_number(function, *given):
    """Later cells round and draw what the function returns."""
    if isinstance(found := call(function, *given), (torch.Tensor, np.ndarray)):
        raise CheckFailed(f"the value is right, but it comes as a {type(found).__name__}: add `.item()`")


class _Ordered(nn.Module):
    """A model whose logits depend on the order of a clip's frames: each frame counts with other weights."""

    def __init__(self, seed, *shape):
        super().__init__()
        self.register_buffer("weights", drawn(8, 3, seed=seed))
        self.shape = shape

    def forward(self, clips):
        if clips.shape[1:] != self.shape:
            said = ", ".join(map(str, self.shape))
            raise ValueError(f"this model takes clips [B, {said}], got {list(clips.shape)}")
        return clips.mean(dim=(1, 3, 4)) @ self.weights[: clips.shape[2]]


class _Bag(nn.Module):
    """A model that takes frames as a set."""

    def forward(self, clips):
        return clips.sum(dim=(1, 2, 3))


# ---- 06.6


@exercise
def check_explanation(size_ratio: Callable, QuietModel2: Callable) -> None:
    """06.6: size_ratio(model, clips) -> positions over frame vectors; QuietModel2(…, factor) shrinks the latter."""

    def size(x):
        return x.square().mean().sqrt()

    cases = [drawn(2, *CLIP).sigmoid(), drawn(1, *CLIP, seed=1).sigmoid()]
    models = [_filled(finished.Model2(CLIP, TUBELET, CLASSES, DIM, 1, 2, HEADS, MLP_DIM, pool)) for pool in POOLS]
    examine(
        size_ratio,
        finished.size_ratio,
        *zip(models, cases),
        mistakes={
            "this is the ratio the other way round: positions over frame vectors": lambda m, x: (
                size(m.frames(x)) / size(m.time.positions)
            ).item(),
            "0.02 is written into the code: take the size of model.time.positions": lambda m, x: (
                0.02 / size(m.frames(x))
            ).item(),
            "these are the positions in space: take those of `model.time`": lambda m, x: (
                size(m.space.positions) / size(m.frames(x))
            ).item(),
            "this is the size of the positions alone: divide it by that of the frame vectors": lambda m, x: size(
                m.time.positions
            ).item(),
            "this is the ratio of the norms, which grow with the number of clips: take the mean of the squares": (
                lambda m, x: (m.time.positions.norm() / m.frames(x).norm()).item()
            ),
            "this is the ratio of the mean squares: take their roots": lambda m, x: (
                m.time.positions.square().mean() / m.frames(x).square().mean()
            ).item(),
            "std subtracts the mean first: take the root of the mean of the squares": lambda m, x: (
                m.time.positions.std() / m.frames(x).std()
            ).item(),
            "these are mean sizes, abs().mean(): take the root of the mean of the squares": lambda m, x: (
                m.time.positions.abs().mean() / m.frames(x).abs().mean()
            ).item(),
            "the frame vectors are those after the positions were added": lambda m, x: (
                size(m.time.positions) / size(m.frames(x) + m.time.positions[:, : GRID[0]])
            ).item(),
            "these are the tokens: take the frame vectors, model.frames(clips)": lambda m, x: (
                size(m.time.positions) / size(m.embedding(x))
            ).item(),
        },
        what="the ratio",
        gradients=False,
        dtypes=(),
    )
    _python_number(size_ratio, models[0], cases[0])
    for factor in (0.3, 2.5):
        model = call(QuietModel2, CLIP, TUBELET, CLASSES, DIM, 1, 2, HEADS, MLP_DIM, factor=factor)
        _compare_quiet(_filled(part_of(SimpleNamespace(model=model), "model")), factor)
    passed("06.6", "the ratio, and a model that changes it from the other side.")


def _compare_quiet(model, factor):
    clips = drawn(2, *CLIP).sigmoid()
    with torch.no_grad():
        plain = finished.encode_frames(model.space, model.embedding(clips))
        close(
            call(model.frames, clips),
            factor * plain,
            {
                "the frame vectors are as large as before: multiply what super().frames(clips) returns": plain,
                "the frame vectors are divided by the factor: multiply them": plain / factor,
                "the factor is used twice": factor**2 * plain,
                "the factor is added: multiply by it": plain + factor,
                "0.02 is written into the code: multiply by self.factor": 0.02 * plain,
                "the tokens are multiplied, and the spatial encoder normalises that away: multiply its result": (
                    lambda: finished.encode_frames(model.space, factor * model.embedding(clips))
                ),
                "the clips are multiplied: multiply the frame vectors": lambda: finished.encode_frames(
                    model.space, model.embedding(factor * clips)
                ),
            },
            what=f"what `frames` returns with factor={factor}",
        )
        logits = model.head(model.time(factor * plain))
        same = "the logits must be those of Model 2 with the smaller frame vectors: leave `forward` as it is"
        close(model(clips), logits, {same: factor * logits, f"{same}, and `time` too": model.head(model.time(plain))})
    check_reached(model, clips)


# ---- in the package, and in vit-pytorch


def _names_in_the_package(model, clip_shape=None):
    """The weights of a reader's Model 2 under the names of the package's."""
    weights = {}
    for encoder, kind_of_encoder, mark in ((model.space, "spatial_", ""), (model.time, "temporal_", "temporal_")):
        if encoder is None:
            continue
        like_model1 = SimpleNamespace(
            positions=encoder.positions,
            cls=encoder.cls,
            blocks=encoder.blocks,
            embedding=model.embedding,
            head=SimpleNamespace(norm=encoder.norm, linear=model.head),
        )
        for name, value in named_as_package(like_model1, clip_shape).items():
            own = name.startswith(("positions", "cls"))
            weights[(mark if own else kind_of_encoder if name.startswith("encoder") else "") + name] = value
    return weights


def model2_in_the_package(model: nn.Module, clip_shape: Sequence[int]) -> nn.Module:
    """The package's Model 2 with the weights of yours, in eval mode. clip_shape: (C, T, H, W)."""
    convolution = as_convolution(model.embedding, clip_shape)
    block = model.space.blocks[0]
    package = build_model(
        "factorised_encoder",
        clip_shape=tuple(clip_shape),
        num_classes=model.head.out_features,
        tubelet=tuple(convolution.kernel_size),
        dim=convolution.out_channels,
        depth=len(model.space.blocks),
        temporal_depth=0 if model.time is None else len(model.time.blocks),
        heads=heads_of(block.attention),
        mlp_dim=linears_of(block.mlp, convolution.out_channels)[0].out_features,
        pool="mean" if model.space.cls is None else "cls",
    )
    package.load_state_dict(_names_in_the_package(model, clip_shape))
    return package.eval()


@torch.no_grad()
def with_fresh_weights(model: nn.Module, clip_shape: Sequence[int] = (1, 4, 8, 8)) -> nn.Module:
    """A Model 2 with weights drawn by the package's rules: Xavier's, small ones in the head, and no biases.

    clip_shape: of its clips, (C, T, H, W), by default the bars'."""
    for encoder in filter(None, (model.space, model.time)):
        for linear in (part for part in encoder.blocks.modules() if isinstance(part, nn.Linear)):
            stacked = 3 if linear.out_features == 3 * linear.in_features else 1  # queries, keys and values in one
            for weight in linear.weight.chunk(stacked):
                nn.init.xavier_uniform_(weight)
            nn.init.zeros_(linear.bias)
    init_projection(as_convolution(model.embedding, clip_shape))
    nn.init.normal_(model.head.weight, std=0.02)
    nn.init.zeros_(model.head.bias)
    return model


def model2_like_the_package(Model2: Callable) -> None:
    """Compares a Model 2 with the package's that has the same weights, on clips of 28³ voxels."""
    for more in ({"pool": "cls"}, {"pool": "mean"}, {"temporal_depth": 0}):
        model = _filled(_on_organs(Model2, **more), std=0.2)
        clips = drawn(2, 1, 28, 28, 28).sigmoid()
        said = ", ".join(f"{name}={value!r}" for name, value in more.items())
        with torch.no_grad():
            say_difference(
                f"your Model2({said})",
                "the package's",
                model(clips),
                model2_in_the_package(model, clips.shape[1:])(clips),
            )


def model2_like_vit_pytorch(Model2: Callable) -> None:
    """Compares a Model 2 with ViViT(variant="factorized_encoder") of vit-pytorch, where it is installed: without
    temporal positions and without biases of queries, keys and values, which that one does not have."""
    if not importlib.util.find_spec("vit_pytorch"):
        print("vit-pytorch is not installed: pip install vit-pytorch, and run this cell again")
        return
    from vit_pytorch.vivit import ViViT

    for pool in POOLS:
        model = _filled(_on_organs(Model2, pool=pool), std=0.2)
        theirs = ViViT(
            image_size=28, image_patch_size=7, frames=28, frame_patch_size=7, num_classes=11, dim=64, channels=1,
            spatial_depth=2, temporal_depth=2, heads=4, dim_head=16, mlp_dim=128, pool=pool,
        ).eval()  # fmt: skip
        _make_alike(theirs, model)
        clips = drawn(2, 1, 28, 28, 28).sigmoid()
        with torch.no_grad():
            say_difference(f'your Model2(pool="{pool}")', "vit-pytorch's", model(clips), theirs(clips))


@torch.no_grad()
def _make_alike(theirs, model):
    """Our weights into vit-pytorch's model, and what it lacks out of ours."""
    model.time.positions.zero_()
    theirs.to_patch_embedding, theirs.mlp_head = model.embedding, model.head
    positions = model.space.positions
    if model.space.cls is not None:  # their cls token has no position
        theirs.spatial_cls_token.copy_(model.space.cls + positions[:, :1])
        theirs.temporal_cls_token.copy_(model.time.cls)
        positions = positions[:, 1:]
    theirs.pos_embedding.copy_(positions[:, None].expand(-1, model.embedding.grid[0], -1, -1))
    for their_encoder, ours in ((theirs.spatial_transformer, model.space), (theirs.temporal_transformer, model.time)):
        their_encoder.norm = ours.norm
        for (attention, mlp), block in zip(their_encoder.layers, ours.blocks):
            weight, bias, out_weight, out_bias = projections(block.attention)
            for linear in (part for part in block.attention.modules() if isinstance(part, nn.Linear)):
                linear.bias.mul_(linear.weight is out_weight)  # theirs has none for queries, keys and values
            attention.norm, mlp.net[0] = block.norm_attention, block.norm_mlp
            attention.to_qkv.weight.copy_(weight)
            attention.to_out[0].weight.copy_(out_weight)
            attention.to_out[0].bias.copy_(out_bias)
            mlp.net[1], mlp.net[4] = (part for part in block.mlp.modules() if isinstance(part, nn.Linear))


def _on_organs(Model2, temporal_depth=2, **more):
    return Model2((1, 28, 28, 28), (7, 7, 7), 11, 64, 2, temporal_depth, 4, 128, **more).eval()
