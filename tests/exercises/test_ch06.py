"""The checks of chapter 06's exercises, the copying of weights behind them, and the chapter's drawings."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from tests.exercises.cases import run_cases
from vivit_edu import TubeletEmbedding
from vivit_edu.course.checks import CheckFailed, ch06
from vivit_edu.course.ready import ch06 as finished
from vivit_edu.course.ready.ch05 import EncoderBlock, prepend_cls

# ---- 06.1 one vector per frame


def frames_by_einops(encoder, tokens):
    z = encoder(rearrange(tokens, "b t s d -> (b t) s d"))
    return rearrange(z, "(b t) d -> b t d", b=len(tokens))


def frames_by_flatten(encoder, tokens):
    return encoder(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])


def frames_by_loop(encoder, tokens):
    return torch.stack([encoder(tokens[:, t]) for t in range(tokens.shape[1])], dim=1)


def frames_time_first(encoder, tokens):
    z = encoder(rearrange(tokens, "b t s d -> (t b) s d"))
    return rearrange(z, "(t b) d -> b t d", b=tokens.shape[0])


def frames(fold, unfold):
    def encode_frames(encoder, tokens):
        z = encoder(rearrange(tokens, f"b t s d -> {fold}"))
        return rearrange(z, f"{unfold} -> b t d", b=len(tokens))

    return encode_frames


def frames_reshaped(encoder, tokens):
    b, t, s, d = tokens.shape
    return encoder(tokens.transpose(1, 2).reshape(b * t, s, d)).reshape(b, t, d)


def frames_viewed_time_first(encoder, tokens):
    b, t, s, d = tokens.shape
    return encoder(tokens.view(t * b, s, d)).view(t, b, d).transpose(0, 1)


def frames_over_time(encoder, tokens):
    z = encoder(rearrange(tokens, "b t s d -> (b s) t d"))
    return rearrange(z, "(b s) d -> b s d", b=len(tokens))


test_encode_frames = run_cases(
    ch06.check_encode_frames,
    right=[frames_by_einops, frames_by_flatten, frames_by_loop, frames_time_first],
    wrong={
        "folded the other way": (frames("(t b) s d", "(b t) d"), "clips are mixed up"),
        "unfolded the other way": (frames("(b t) s d", "(t b) d"), "only the unfolding"),
        "viewed, time first": (frames_viewed_time_first, "clips are mixed up"),
        "transposed, then reshaped": (frames_reshaped, "shuffled on the way"),
        "all in one sequence": (lambda e, z: e(z.flatten(1, 2)), "time stayed in the sequence"),
        "space and time exchanged": (frames_over_time, "space and time are exchanged"),
        "not folded": (lambda e, z: e(z), "takes sequences.*fold the time indices"),
        "not encoded": (lambda e, z: z.mean(2), "nothing was encoded"),
        "averaged first": (
            lambda e, z: e(z.mean(2, keepdim=True).flatten(0, 1)).unflatten(0, z.shape[:2]),
            "averaged before the encoder",
        ),
        "not unfolded": (lambda e, z: e(z.flatten(0, 1)), "still folded"),
        "unfolded with b=nt": (
            lambda e, z: rearrange(e(z.flatten(0, 1)), "(b t) d -> b t d", b=z.shape[1]),
            "b is the number of clips",
        ),
        "averaged over time": (lambda e, z: frames_by_flatten(e, z).mean(1), "time is gone"),
        "the first time index": (lambda e, z: e(z[:, 0])[:, None].expand(-1, z.shape[1], -1), "of the first one"),
        "the notebook's batch": (
            lambda e, z: rearrange(e(z.flatten(0, 1)), "(b t) d -> b t d", b=2),
            "your code raised EinopsError",
        ),
        "axes of length 1 lost": (lambda e, z: frames_by_flatten(e, z).squeeze(), "With other sizes it was right"),
        "detached": (lambda e, z: frames_by_flatten(e, z.detach()), "no gradient reaches"),
        "without gradients": (torch.no_grad()(frames_by_flatten), "no gradient reaches"),
        "nothing returned": (lambda e, z: None, "return"),
    },
)

# ---- 06.2 the detector


def alone(model, clips):
    return torch.cat([model(clip[None]) for clip in clips])


def gap(model, clips, measure=torch.amax, **more):
    """The size of the difference between batch and clips alone, as a share of the largest logit."""
    together = model(clips)
    return measure((together - alone(model, clips)).abs(), **more) / together.abs().max()


def quietly(test):
    """A detector around `test`, in eval mode, and the mode restored."""

    def depends_on_mates(model, clips):
        training = model.training
        model.eval()
        with torch.no_grad():
            result = test(model, clips)
        model.train(training)
        return result

    return depends_on_mates


def detector(model, clips):
    was = model.training
    model.eval()
    with torch.no_grad():
        found = gap(model, clips) > 1e-3
    model.train(was)
    return found.item()


def detector_clip_by_clip(model, clips):
    training = model.training
    model = model.eval()
    together = model(clips)
    scale, guilty = together.abs().max(), False
    for i in range(len(clips)):
        if (model(clips[i : i + 1])[0] - together[i]).abs().max() / scale > 5e-4:
            guilty = True
    model.train(training)
    return guilty


def detector_by_other_mates(model, clips):
    training, guilty = model.training, False
    model.eval()
    with torch.no_grad():
        logits = model(clips)
        for i in range(len(clips)):
            others = torch.zeros_like(clips)
            others[i] = clips[i]
            guilty |= bool((model(others)[i] - logits[i]).abs().max() > 1e-3 * logits.abs().max())
    model.train(training)
    return np.bool_(guilty)


def by_shuffling(model, clips):
    order = torch.arange(len(clips)).flip(0)
    logits = model(clips)
    return bool((logits[order] - model(clips[order])).abs().max() > 1e-3 * logits.abs().max())


def first_clip(model, clips):
    logits = model(clips)
    return bool((logits[:1] - model(clips[:1])).abs().max() > 1e-3 * logits.abs().max())


def first_pair_goes(model, clips):
    """Takes the first two clips away and looks at the others."""
    if len(clips) == 1:
        return False
    logits = model(clips)
    return bool((logits[2:] - model(clips[2:])).abs().max() > 1e-3 * logits.abs().max())


def first_is_another(model, clips):
    """Another first clip, and the others compared."""
    if len(clips) == 1:
        return False
    logits, others = model(clips), clips.clone()
    others[0] = 1 - others[0]
    return bool((logits[1:] - model(others)[1:]).abs().max() > 1e-3 * logits.abs().max())


def in_pairs(model, clips):
    """Two clips at a time instead of one."""
    logits = model(clips)
    halves = torch.cat([model(clips[i : i + 2]) for i in range(0, len(clips), 2)])
    return bool((logits - halves).abs().max() > 1e-3 * logits.abs().max())


def without_eval(model, clips):
    with torch.no_grad():
        return bool(gap(model, clips) > 1e-3)


def leaves_eval(model, clips):
    model.eval()
    return bool(gap(model, clips) > 1e-3)


def always_train_afterwards(model, clips):
    model.eval()
    result = bool(gap(model, clips) > 1e-3)
    model.train()
    return not result


def train_afterwards(model, clips):
    model.eval()
    with torch.no_grad():
        result = bool(gap(model, clips) > 1e-3)
    model.train()
    return result


def clip_without_batch(model, clips):
    together = model(clips)
    alone = torch.cat([model(clip) for clip in clips])
    return bool((together - alone).abs().max() > 1e-3 * together.abs().max())


def gradients_left_off(model, clips):
    torch.set_grad_enabled(False)
    return detector(model, clips)


def with_a_seed(model, clips):
    torch.manual_seed(0)
    return detector(model, clips)


test_depends_on_mates = run_cases(
    ch06.check_depends_on_mates,
    right=[detector, detector_clip_by_clip, detector_by_other_mates],
    wrong={
        "always True": (lambda model, clips: True, "says True of every model"),
        "always False": (lambda model, clips: False, "says False of every model"),
        "opposite": (always_train_afterwards, "wrong way round"),
        "by shuffling": (quietly(by_shuffling), "Shuffling the batch does not show it"),
        "first clip alone": (quietly(first_clip), "Compare every clip"),
        "all but the first": (
            quietly(lambda m, c: bool(((m(c) - alone(m, c))[1:].abs() > 1e-3 * m(c).abs().max()).any())),
            "only the first clip is disturbed",
        ),
        "the first two go": (quietly(first_pair_goes), "overlooked"),
        "another first clip": (quietly(first_is_another), "the next one"),
        "in pairs": (quietly(in_pairs), "clips 0 and 1 look at each other"),
        "exactly equal": (quietly(lambda m, c: not torch.equal(m(c), alone(m, c))), "fooled by rounding"),
        "allclose as it is": (quietly(lambda m, c: not torch.allclose(m(c), alone(m, c))), "fooled by|overlooked"),
        "atol 1e-4": (
            quietly(lambda m, c: not torch.allclose(m(c), alone(m, c), rtol=0, atol=1e-4)),
            "fooled by rounding",
        ),
        "atol 1e-3, and relative": (
            quietly(lambda m, c: not torch.allclose(m(c), alone(m, c), rtol=1e-3, atol=1e-3)),
            "between logits of 0.001",
        ),
        "a tenth": (quietly(lambda m, c: bool(gap(m, c) > 0.1)), "a leak"),
        "differences that cancel": (
            quietly(lambda m, c: bool((m(c) - alone(m, c)).sum().abs() > 1e-3 * m(c).abs().max())),
            "overlooked",
        ),
        "the class alone": (quietly(lambda m, c: bool((m(c).argmax(1) != alone(m, c).argmax(1)).any())), "overlooked"),
        "all must differ": (
            quietly(lambda m, c: bool(((m(c) - alone(m, c)).abs() > 1e-3 * m(c).abs().max()).all())),
            "overlooked",
        ),
        "always four clips": (
            quietly(lambda m, c: bool((m(c) - alone(m, c[torch.arange(4)])).abs().max() > 1e-3 * m(c).abs().max())),
            "your code raised",
        ),
        "train mode": (without_eval, "dropout|put the model into eval mode"),
        "left in eval mode": (leaves_eval, "left in another mode"),
        "always in train mode afterwards": (train_afterwards, r"left in another mode.*train\(mode\)"),
        "clips without a batch axis": (quietly(clip_without_batch), r"takes clips.*clips\[i : i \+ 1\]"),
        "gradients left off": (gradients_left_off, "gradients switched off"),
        "a global seed": (with_a_seed, "sets the global seed"),
        "one answer per value": (
            quietly(lambda m, c: (m(c) - alone(m, c)).abs() > 1e-3),
            "True or False, got a Tensor",
        ),
        "a difference": (quietly(lambda m, c: float(gap(m, c))), "True or False, got a float"),
        "nothing returned": (quietly(lambda m, c: None), "return"),
    },
)

# ---- 06.3 the sequence encoder


class Reader(nn.Module):
    def __init__(self, count, dim, depth, heads, mlp_dim, pool="mean", std=0.02):
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, dim)) if pool == "cls" else None
        self.positions = nn.Parameter(std * torch.randn(1, count + (pool == "cls"), dim))
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads, mlp_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, z):
        if self.cls is not None:
            z = prepend_cls(z, self.cls)
        z = z + self.positions
        for block in self.blocks:
            z = block(z)
        z = self.norm(z)
        return z.mean(dim=1) if self.cls is None else z[:, 0]


class ReaderWithIf(nn.Module):
    def __init__(self, count, dim, depth, heads, mlp_dim, pool="mean", std=0.02):
        super().__init__()
        if pool == "cls":
            self.cls = nn.Parameter(torch.zeros(1, 1, dim))
            count += 1
        else:
            self.cls = None
        self.positions = nn.Parameter(torch.zeros(1, count, dim).normal_(std=std))
        self.blocks = nn.ModuleList([EncoderBlock(dim, heads, mlp_dim) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, z):
        if self.cls is not None:
            z = torch.cat([self.cls.repeat(z.shape[0], 1, 1), z], dim=1)
        z = nn.Sequential(*self.blocks)(self.positions + z)
        if self.cls is not None:
            return self.norm(z[:, 0])
        return self.norm(z).sum(dim=1) / z.shape[1]


class ReaderPiecewise(Reader):
    def forward(self, z):
        if self.cls is None:
            z = z + self.positions
        else:
            first = (self.cls + self.positions[:, :1]).expand(len(z), -1, -1)
            z = torch.cat((first, z + self.positions[:, 1:]), dim=1)
        for k in range(len(self.blocks)):
            z = self.blocks[k](z)
        return {True: self.norm(z).mean(1), False: self.norm(z)[:, 0]}[self.cls is None]


def reads(function):
    """A SequenceEncoder with another forward, as a student would write it."""

    class SequenceEncoder(Reader):
        forward = function

    return SequenceEncoder


def made(change):
    """A SequenceEncoder with other parts: change(self, count, dim, depth, heads, mlp_dim, pool, std)."""

    class SequenceEncoder(Reader):
        def __init__(self, count, dim, depth, heads, mlp_dim, pool="mean", std=0.02):
            super().__init__(count, dim, depth, heads, mlp_dim, pool, std)
            change(self, count, dim, depth, heads, mlp_dim, pool, std)

    return SequenceEncoder


def front(self, z):
    return z if self.cls is None else prepend_cls(z, self.cls)


def through(self, z):
    for block in self.blocks:
        z = block(z)
    return z


def read(self, z):
    return z.mean(dim=1) if self.cls is None else z[:, 0]


def no_norm(self, z):
    return read(self, through(self, front(self, z) + self.positions))


def mean_then_norm(self, z):
    return self.norm(no_norm(self, z))


def no_positions(self, z):
    return read(self, self.norm(through(self, front(self, z))))


def positions_at_the_end(self, z):
    return read(self, self.norm(through(self, front(self, z)) + self.positions))


def always_mean(self, z):
    return self.norm(through(self, front(self, z) + self.positions)).mean(dim=1)


def always_first(self, z):
    return self.norm(through(self, front(self, z) + self.positions))[:, 0]


def last_token(self, z):
    z = self.norm(through(self, front(self, z) + self.positions))
    return z.mean(dim=1) if self.cls is None else z[:, -1]


def cls_behind(self, z):
    if self.cls is not None:
        z = torch.cat((z, self.cls.expand(len(z), -1, -1)), dim=1)
    z = self.norm(through(self, z + self.positions))
    return z.mean(dim=1) if self.cls is None else z[:, -1]


def cls_behind_first_read(self, z):
    if self.cls is not None:
        z = torch.cat((z, self.cls.expand(len(z), -1, -1)), dim=1)
    return read(self, self.norm(through(self, z + self.positions)))


def cls_after_positions(self, z):
    return read(self, self.norm(through(self, front(self, z + self.positions))))


def norm_in_the_loop(self, z):
    z = front(self, z) + self.positions
    for block in self.blocks:
        z = self.norm(block(z))
    return read(self, z)


def norm_first(self, z):
    return read(self, through(self, self.norm(front(self, z) + self.positions)))


def cls_without_position(self, z):
    if self.cls is None:
        return Reader.forward(self, z)
    return self.norm(through(self, prepend_cls(z + self.positions[:, 1:], self.cls)))[:, 0]


def first_block_only(self, z):
    return read(self, self.norm(self.blocks[0](front(self, z) + self.positions)))


def z_not_handed_on(self, z):
    z = front(self, z) + self.positions
    for block in self.blocks:
        y = block(z)
    return read(self, self.norm(y))


def all_tokens(self, z):
    return self.norm(through(self, front(self, z) + self.positions))


def kept_axis(self, z):
    z = all_tokens(self, z)
    return z.mean(dim=1, keepdim=True) if self.cls is None else z[:, :1]


def summed(self, z):
    z = all_tokens(self, z)
    return z.sum(dim=1) if self.cls is None else z[:, 0]


def adds_in_place(self, z):
    z += self.positions[:, -z.shape[1] :]
    return read(self, self.norm(through(self, z)))


def positions_detached(self, z):
    return read(self, self.norm(through(self, front(self, z) + self.positions.data)))


def with_dropout(self, z):
    z = F.dropout(front(self, z) + self.positions, 0.1, self.training)
    return read(self, self.norm(through(self, z)))


def list_of_blocks(self, *sizes):
    blocks = list(self.blocks)
    del self.blocks
    self.blocks = blocks


def one_block_again(self, *sizes):
    self.blocks = nn.ModuleList([self.blocks[0]] * len(self.blocks))


def plain_positions(self, *sizes):
    positions = self.positions.data
    del self.positions
    self.positions = positions


def no_place_for_cls(self, count, dim, *sizes):
    self.positions = nn.Parameter(0.7 * torch.randn(1, count, dim))


def std_ignored(self, count, *sizes):
    self.positions = nn.Parameter(0.02 * torch.randn_like(self.positions))


def one_norm_of_tokens(self, count, *sizes):
    self.norm = nn.LayerNorm(count)


def cls_for_the_mean(self, count, dim, *sizes):
    self.cls = nn.Parameter(torch.zeros(1, 1, dim))


def mlp_dim_ignored(self, count, dim, depth, heads, *more):
    self.blocks = nn.ModuleList(EncoderBlock(dim, heads, 4 * dim) for _ in range(depth))


def heads_ignored(self, count, dim, depth, heads, mlp_dim, *more):
    self.blocks = nn.ModuleList(EncoderBlock(dim, 4, mlp_dim) for _ in range(depth))


def cls_at_random(self, count, dim, *sizes):
    if self.cls is not None:
        self.cls = nn.Parameter(torch.randn(1, 1, dim))


def no_cls(self, count, dim, *sizes):
    self.cls = None


test_sequence_encoder = run_cases(
    ch06.check_sequence_encoder,
    right=[Reader, ReaderWithIf, ReaderPiecewise],
    wrong={
        "no norm": (reads(no_norm), "LayerNorm is missing"),
        "mean, then norm": (reads(mean_then_norm), "mean is taken first"),
        "no positions": (reads(no_positions), "positions are not used"),
        "positions at the end": (reads(positions_at_the_end), "added after the blocks"),
        "always the mean": (reads(always_mean), "with a cls token, take that one"),
        "always the first": (reads(always_first), "no cls token here"),
        "the last token": (reads(last_token), "last token is read"),
        "cls behind": (reads(cls_behind), "put it in front"),
        "cls behind, the first read": (reads(cls_behind_first_read), "comes last, but the first token is read"),
        "cls after the positions": (reads(cls_after_positions), "the cls token comes first, and the positions"),
        "norm in the loop": (reads(norm_in_the_loop), "follows every block"),
        "norm first": (reads(norm_first), "before the blocks"),
        "mlp_dim ignored": (made(mlp_dim_ignored), "an MLP of width 48"),
        "heads ignored": (made(heads_ignored), "has 4 heads"),
        "cls at random": (made(cls_at_random), "does not start at zero"),
        "never a cls": (made(no_cls), 'with pool="cls", .* has no cls token'),
        "cls without a position": (reads(cls_without_position), "got no position"),
        "first block": (reads(first_block_only), "only the first block"),
        "z not handed on": (reads(z_not_handed_on), "only the last block's result"),
        "all tokens": (reads(all_tokens), "all tokens are returned"),
        "kept axis": (reads(kept_axis), "axis is still there"),
        "summed": (reads(summed), "take their mean"),
        "in place": (reads(adds_in_place), "changes the z|your code raised"),
        "positions detached": (reads(positions_detached), "no gradient reaches module.positions"),
        "dropout": (reads(with_dropout), "train mode"),
        "a list": (made(list_of_blocks), "plain list"),
        "one block": (made(one_block_again), "one block several times"),
        "no Parameter": (made(plain_positions), "expected nn.Parameter"),
        "no position for cls": (made(no_place_for_cls), "one for the cls token"),
        "std ignored": (made(std_ignored), "expected 0.7"),
        "norm over tokens": (made(one_norm_of_tokens), "must normalise the 12 features"),
        "cls for the mean": (made(cls_for_the_mean), "self.cls = None"),
        "nothing returned": (reads(lambda self, z: None), "return"),
    },
)

# ---- 06.4 Model 2


class Whole(nn.Module):
    def __init__(
        self,
        clip_shape,
        tubelet,
        classes,
        dim=32,
        depth=1,
        temporal_depth=1,
        heads=4,
        mlp_dim=64,
        pool="mean",
        std=0.02,
    ):
        super().__init__()
        self.embedding = TubeletEmbedding(clip_shape, dim, tubelet)
        nt, nh, nw = self.embedding.grid
        self.space = Reader(nh * nw, dim, depth, heads, mlp_dim, pool)
        self.time = Reader(nt, dim, temporal_depth, heads, mlp_dim, pool, std) if temporal_depth > 0 else None
        self.head = nn.Linear(dim, classes)

    def frames(self, clips):
        return frames_by_flatten(self.space, self.embedding(clips))

    def forward(self, clips):
        z = self.frames(clips)
        return self.head(z.mean(dim=1) if self.time is None else self.time(z))


class WholeWithIf(Whole):
    def frames(self, clips):
        tokens = self.embedding(clips)
        return torch.stack([self.space(tokens[:, t]) for t in range(tokens.shape[1])], dim=1)

    def forward(self, clips):
        frames = self.frames(clips)
        if self.time is None:
            return self.head(frames).mean(1)
        return self.head(self.time(frames))


class WholeOfOtherReaders(Whole):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=1, temporal_depth=1, heads=4, mlp_dim=64, *more):
        super().__init__(clip_shape, tubelet, classes, dim, depth, temporal_depth, heads, mlp_dim, *more)
        nt, nh, nw = self.embedding.grid
        pool, std = (*more, "mean", 0.02)[:2] if len(more) != 1 else (*more, 0.02)
        self.space = ReaderWithIf(nh * nw, dim, depth, heads, mlp_dim, pool, 0.02)
        if temporal_depth:
            self.time = ReaderPiecewise(nt, dim, temporal_depth, heads, mlp_dim, pool, std)


def model(forward=None, frames=None):
    """A Model2 with another forward or frames."""
    methods = {name: method for name, method in (("forward", forward), ("frames", frames)) if method is not None}
    return type("Model2", (Whole,), methods)


def model_with(change):
    """A Model2 with other parts: change(self, nt, places, dim, pool, std)."""

    class Model2(Whole):
        def __init__(self, clip_shape, tubelet, classes, dim, depth, temporal_depth, heads, mlp_dim, pool, std):
            super().__init__(clip_shape, tubelet, classes, dim, depth, temporal_depth, heads, mlp_dim, pool, std)
            self.sizes = (dim, depth, heads, mlp_dim)
            nt, nh, nw = self.embedding.grid
            change(self, nt, nh * nw, pool, std)

    return Model2


def finish(self, z):
    return self.head(z.mean(dim=1) if self.time is None else self.time(z))


def unfolded_wrongly(self, clips):
    z = self.space(self.embedding(clips).flatten(0, 1))
    return rearrange(z, "(t b) d -> b t d", b=len(clips))


def time_over_the_batch(self, clips):
    z = self.frames(clips)
    if self.time is None:
        return finish(self, z)
    return finish(self, z.transpose(0, 1).reshape(z.shape))


def positions_twice(self, clips):
    z = self.frames(clips)
    return finish(self, z if self.time is None else z + self.time.positions[:, -z.shape[1] :])


def small_time(self, nt, places, pool, std):
    if self.time is not None:
        dim, depth, heads, mlp_dim = self.sizes
        self.time = Reader(nt, dim, 2, heads, mlp_dim, pool)


def large_space(self, nt, places, pool, std):
    dim, depth, heads, mlp_dim = self.sizes
    self.space = Reader(places, dim, depth, heads, mlp_dim, pool, std)


def same_depth_in_time(self, nt, places, pool, std):
    if self.time is not None:
        dim, depth, heads, mlp_dim = self.sizes
        self.time = Reader(nt, dim, depth, heads, mlp_dim, pool, std)


def all_tokens_in_space(self, nt, places, pool, std):
    dim, depth, heads, mlp_dim = self.sizes
    self.space = Reader(nt * places, dim, depth, heads, mlp_dim, pool)


def places_in_time(self, nt, places, pool, std):
    if self.time is not None:
        dim, depth, heads, mlp_dim = self.sizes
        self.time = Reader(places, dim, 2, heads, mlp_dim, pool, std)


def mean_in_time(self, nt, places, pool, std):
    if self.time is not None:
        dim, depth, heads, mlp_dim = self.sizes
        self.time = Reader(nt, dim, 2, heads, mlp_dim, "mean", std)


def always_in_time(self, nt, places, pool, std):
    dim, depth, heads, mlp_dim = self.sizes
    self.time = self.time or Reader(nt, dim, 0, heads, mlp_dim, pool, std)


def one_encoder_for_both(self, *sizes):
    if self.time is not None:
        self.time = self.space


def the_notebooks_grid(self, *sizes):
    self.embedding = TubeletEmbedding((1, 4, 8, 8), self.sizes[0], (1, 8, 2))


def head_without_bias(self, *sizes):
    self.head = nn.Linear(self.sizes[0], 7, bias=False)


def one_logit_less(self, *sizes):
    self.head = nn.Linear(self.sizes[0], 6)


def head_of_two(self, *sizes):
    self.head = nn.Sequential(nn.LayerNorm(self.sizes[0]), self.head)


def no_time_at_all(self, *sizes):
    self.time = None


def no_space(self, *sizes):
    del self.space


class NoFrames(nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        whole = Whole(*sizes)
        self.embedding, self.space, self.time, self.head = whole.embedding, whole.space, whole.time, whole.head


test_model2 = run_cases(
    ch06.check_model2,
    right=[Whole, WholeWithIf, WholeOfOtherReaders],
    wrong={
        "unfolded wrongly": (model(frames=unfolded_wrongly), "come back to the wrong clips"),
        "frames averaged": (model(frames=lambda s, x: Whole.frames(s, x).mean(1)), "time is gone"),
        "tokens instead of frames": (model(frames=lambda s, x: s.embedding(x)), "these are the tokens"),
        "positions in frames": (
            model(frames=lambda s, x: frames_by_flatten(s.space, s.embedding(x) + s.space.positions[:, -10:])),
            "although `space` adds them itself",
        ),
        "time not used": (model(lambda s, x: s.head(s.frames(x).mean(1))), "temporal encoder is not used"),
        "positions twice": (model(positions_twice), "added twice"),
        "time over the batch": (model(time_over_the_batch), "works over the batch"),
        "softmax": (model(lambda s, x: finish(s, s.frames(x)).softmax(-1)), "softmax follows"),
        "no head": (model(lambda s, x: s.time(s.frames(x)) if s.time else s.frames(x).mean(1)), "(has|have) shape"),
        "time is not optional": (model(lambda s, x: s.head(s.time(s.frames(x)))), "NoneType"),
        "without gradients": (model(torch.no_grad()(Whole.forward)), "no gradient reaches"),
        "frames detached": (model(lambda s, x: finish(s, s.frames(x).detach())), "no gradient reaches"),
        "dropout": (model(lambda s, x: finish(s, F.dropout(s.frames(x), 0.1, s.training))), "train mode"),
        "std ignored": (model_with(small_time), "with std=0.7 the temporal positions"),
        "std for both": (model_with(large_space), "which is for time only"),
        "depth for both": (model_with(same_depth_in_time), "with temporal_depth=2, `time` has 3"),
        "one encoder for both": (model_with(one_encoder_for_both), "share weights"),
        "the notebook's grid": (model_with(the_notebooks_grid), r"a grid of \(4, 1, 4\), not \(3, 2, 5\)"),
        "head without bias": (model_with(head_without_bias), "`head` has no bias"),
        "frames bypassed": (
            model(lambda s, x: finish(s, frames_by_flatten(s.space, s.embedding(x)))),
            r"does not call self.frames\(clips\)",
        ),
        "all tokens in space": (model_with(all_tokens_in_space), "`positions` of `space` has shape"),
        "places in time": (model_with(places_in_time), "`positions` of `time` has shape"),
        "cls in space only": (model_with(mean_in_time), 'with pool="cls", `time` has no cls token: hand on `pool`'),
        "time with depth 0": (model_with(always_in_time), "self.time = None"),
        "six logits": (model_with(one_logit_less), "with dim=12 and classes=7"),
        "a norm in the head": (model_with(head_of_two), "`head` must be nn.Linear"),
        "never a time": (model_with(no_time_at_all), "no part `time`"),
        "no space": (model_with(no_space), "no part `space`"),
        "no frames": (NoFrames, "no method `frames`"),
        "nothing returned": (model(lambda s, x: None), "return"),
    },
)

# ---- 06.5 all orders


def effect_by_loop(model, clips, pt):
    pieces, largest = clips.split(pt, dim=2), 0.0
    with torch.no_grad():
        logits = model(clips)
        for order in permutations(range(len(pieces))):
            change = model(torch.cat([pieces[i] for i in order], dim=2)) - logits
            largest = max(largest, change.abs().max().item())
    return largest


@torch.no_grad()
def effect_by_index(model, clips, pt):
    z = rearrange(clips, "b c (nt pt) h w -> b c nt pt h w", pt=pt)
    found = [model(z[:, :, list(o)].flatten(2, 3)) for o in permutations(range(z.shape[2]))]
    return float((torch.stack(found) - model(clips)).abs().max())


def effect_in_one_batch(model, clips, pt):
    orders = torch.tensor(list(permutations(range(clips.shape[2] // pt))))
    z = clips.unflatten(2, (-1, pt))
    shuffled = torch.stack([z[:, :, o] for o in orders]).flatten(3, 4)  # [orders, B, C, T, H, W]
    logits = model(shuffled.flatten(0, 1)).unflatten(0, shuffled.shape[:2])
    return (logits - model(clips)).abs().max().detach().numpy()[()]


def effect_of_pieces_kept(model, clips, pt):
    """Each order is put together from the pieces of the one before."""
    pieces, largest, logits = clips.split(pt, dim=2), 0.0, model(clips)
    for order in permutations(range(len(pieces))):
        pieces = [pieces[i] for i in order]
        largest = max(largest, (model(torch.cat(pieces, dim=2)) - logits).abs().max().item())
    return largest


def effect_joined(cut=2, join=2):
    def order_effect(model, clips, pt):
        pieces = clips.split(pt, dim=cut)
        orders = permutations(range(len(pieces)))
        return max(
            (model(torch.cat([pieces[i] for i in order], dim=join)) - model(clips)).abs().max().item()
            for order in orders
        )

    return order_effect


def effect(orders=permutations, measure=lambda change: change.abs().max(), cut=lambda clips, pt: pt):
    def order_effect(model, clips, pt):
        pieces = clips.split(cut(clips, pt), dim=2)
        with torch.no_grad():
            logits = model(clips)
            changes = [
                model(torch.cat([pieces[i] for i in order], dim=2)) - logits for order in orders(range(len(pieces)))
            ]
        return measure(torch.stack(changes)).item()

    return order_effect


def effect_last(model, clips, pt):
    pieces = clips.split(pt, dim=2)
    for order in permutations(range(len(pieces))):
        change = model(torch.cat([pieces[i] for i in order], dim=2)) - model(clips)
    return change.abs().max().item()


def effect_of_batch(model, clips, pt):
    return max((model(clips[list(o)]) - model(clips)).abs().max().item() for o in permutations(range(len(clips))))


def shifts(k):
    return [[*k[i:], *k[:i]] for i in k]


def neighbours(k):
    return [[*k[:i], k[i + 1], k[i], *k[i + 2 :]] for i in k[:-1]]


test_order_effect = run_cases(
    ch06.check_order_effect,
    right=[effect_by_loop, effect_by_index, effect_in_one_batch],
    wrong={
        "single frames": (effect(cut=lambda clips, pt: 1), "tears tubelets apart"),
        "reversed": (effect(lambda k: [k[::-1]]), "only the reversed order"),
        "shifts": (effect(shifts), "only shifts"),
        "neighbours": (effect(neighbours), "only neighbours"),
        "no abs": (effect(measure=lambda change: change.max()), "use abs"),
        "mean": (effect(measure=lambda change: change.abs().mean()), "mean change"),
        "smallest": (effect(measure=lambda change: change.abs().min()), "smallest change"),
        "first clip": (effect(measure=lambda change: change[:, 0].abs().max()), "only the first clip"),
        "last clip": (effect(measure=lambda change: change[:, -1].abs().max()), "only the last clip"),
        "pieces written over": (effect_of_pieces_kept, "starts from the one before it"),
        "pieces of nt frames": (effect(cut=lambda clips, pt: clips.shape[2] // pt), "pieces of nt frames"),
        "cut along the channels": (effect_joined(cut=1), "cut along time"),
        "joined along the batch": (effect_joined(join=0), "this model takes.*join along it"),
        "a tensor": (lambda m, x, pt: torch.tensor(effect_by_loop(m, x, pt)), r"add `\.item\(\)`"),
        "added up": (effect(measure=lambda change: change.abs().amax(dim=(1, 2)).sum()), "added up"),
        "last order": (effect_last, "only the reversed order, the last one"),
        "the batch": (effect_of_batch, "(is|are) wrong"),
        "always four": (effect(lambda k: permutations(range(4))), "your code raised IndexError|With other sizes"),
        "two frames each": (effect(cut=lambda clips, pt: 2), "With other sizes|(is|are) wrong"),
        "all changes": (lambda m, x, pt: [effect_by_loop(m, x, pt)] * 3, "is 3 numbers"),
        "signed, min": (effect(measure=lambda change: change.min()), "(is|are) wrong"),
        "clips written into": (lambda m, x, pt: effect_by_loop(m, x.mul_(2), pt), "changes the x"),
        "a seed": (lambda m, x, pt: torch.manual_seed(0) and effect_by_loop(m, x, pt), "global seed"),
        "nothing returned": (lambda m, x, pt: None, "return"),
    },
)

# ---- 06.6 the test of the explanation


def ratio(model, clips):
    with torch.no_grad():
        frames, positions = model.frames(clips), model.time.positions
        return (positions.square().mean().sqrt() / frames.square().mean().sqrt()).item()


def ratio_by_norm(model, clips):
    def size(x):
        return x.norm() / x.numel() ** 0.5

    return float(size(model.time.positions.detach()) / size(model.frames(clips).detach()))


def ratio_of_squares(model, clips):
    squares = (model.time.positions**2).mean() / (model.frames(clips) ** 2).mean()
    return torch.sqrt(squares).item()


class Quiet(Whole):
    def __init__(self, *sizes, factor=1.0, **more):
        super().__init__(*sizes, **more)
        self.factor = factor

    def frames(self, clips):
        return self.factor * super().frames(clips)


class QuietByHand(Quiet):
    def frames(self, clips):
        return frames_by_loop(self.space, self.embedding(clips)).mul(self.factor)


def quiet(frames=None, forward=None):
    methods = {name: method for name, method in (("frames", frames), ("forward", forward)) if method is not None}
    return type("QuietModel2", (Quiet,), methods)


def both(size_ratio=ratio, kind=Quiet):
    """The two answers of the exercise as one, for run_cases."""
    answers = (size_ratio, kind)

    def solution():
        return answers

    return solution


def right_ratio_and_class():
    return ratio, Quiet


def right_by_norm():
    return ratio_by_norm, QuietByHand


def right_of_squares():
    return ratio_of_squares, Quiet


def root(x):
    return x.square().mean().sqrt()


test_explanation = run_cases(
    lambda solution: ch06.check_explanation(*solution()),
    right=[right_ratio_and_class, right_by_norm, right_of_squares],
    wrong={
        "upside down": (both(lambda m, x: 1 / ratio(m, x)), "other way round"),
        "positions in space": (
            both(lambda m, x: (root(m.space.positions) / root(m.frames(x))).item()),
            "these are the positions in space",
        ),
        "positions alone": (both(lambda m, x: root(m.time.positions).item()), "positions alone"),
        "norms": (both(lambda m, x: (m.time.positions.norm() / m.frames(x).norm()).item()), "ratio of the norms"),
        "squares": (both(lambda m, x: ratio(m, x) ** 2), "take their roots"),
        "a tensor": (both(lambda m, x: torch.tensor(ratio(m, x))), r"as a Tensor: add `\.item\(\)`"),
        "always 0.02": (both(lambda m, x: (0.02 / root(m.frames(x))).item()), "0.02 is written into the code"),
        "std": (both(lambda m, x: (m.time.positions.std() / m.frames(x).std()).item()), "std subtracts"),
        "abs": (both(lambda m, x: (m.time.positions.abs().mean() / m.frames(x).abs().mean()).item()), "mean sizes"),
        "of tokens": (
            both(lambda m, x: (root(m.time.positions) / root(m.embedding(x))).item()),
            "these are the tokens",
        ),
        "first clip": (both(lambda m, x: ratio(m, x[:1])), "(is|are) wrong"),
        "one number each": (both(lambda m, x: m.time.positions / m.frames(x)[:1].mean()), "numbers, expected one"),
        "model left in another mode": (both(lambda m, x: ratio(m.train(), x)), "left in another mode"),
        "factor not used": (both(kind=quiet(lambda s, x: Whole.frames(s, x))), "as large as before"),
        "divided": (both(kind=quiet(lambda s, x: Whole.frames(s, x) / s.factor)), "divided by the factor"),
        "twice": (both(kind=quiet(lambda s, x: s.factor**2 * Whole.frames(s, x))), "used twice"),
        "added": (both(kind=quiet(lambda s, x: s.factor + Whole.frames(s, x))), "the factor is added"),
        "the tokens": (
            both(kind=quiet(lambda s, x: frames_by_flatten(s.space, s.factor * s.embedding(x)))),
            "normalises that away",
        ),
        "the clips": (both(kind=quiet(lambda s, x: Whole.frames(s, s.factor * x))), "the clips are multiplied"),
        "always a fiftieth": (both(kind=quiet(lambda s, x: 0.02 * Whole.frames(s, x))), "multiply by self.factor"),
        "the logits": (
            both(kind=quiet(Whole.frames, lambda s, x: s.factor * Whole.forward(s, x))),
            "as large as before",
        ),
        "the logits too": (both(kind=quiet(forward=lambda s, x: s.factor * Whole.forward(s, x))), "leave `forward`"),
        "detached": (both(kind=quiet(lambda s, x: s.factor * Whole.frames(s, x).detach())), "no gradient reaches"),
        "itself again": (both(kind=quiet(lambda s, x: s.factor * s.frames(x))), "RecursionError"),
        "nothing returned": (both(kind=quiet(lambda s, x: None)), "return"),
    },
)

# ---- copying weights


@pytest.mark.parametrize("kind", [Whole, WholeWithIf, finished.Model2])
def test_a_right_model_is_the_package_s_and_vit_pytorch_s(kind, capsys, monkeypatch):
    ch06.model2_like_the_package(kind)
    ch06.model2_like_vit_pytorch(kind)
    assert capsys.readouterr().out.count("agree in all") == (5 if ch06.importlib.util.find_spec("vit_pytorch") else 3)
    monkeypatch.setattr(ch06.importlib.util, "find_spec", lambda name: None)
    ch06.model2_like_vit_pytorch(kind)
    assert "not installed" in capsys.readouterr().out


def test_parity_refuses_a_wrong_model():
    with pytest.raises(CheckFailed, match="differ by up to"):
        ch06.model2_like_the_package(model(frames=unfolded_wrongly))


def test_fresh_weights_are_drawn_by_the_package_s_rules():
    torch.manual_seed(0)
    sizes = {"dim": 96, "heads": 4, "mlp_dim": 384}
    ours = ch06.with_fresh_weights(finished.Model2((1, 4, 8, 8), (1, 8, 2), 2, **sizes))
    package = ch06.build_model(
        "factorised_encoder",
        clip_shape=(1, 4, 8, 8),
        num_classes=2,
        tubelet=(1, 8, 2),
        depth=1,
        temporal_depth=1,
        **sizes,
    )
    for name, weights in ch06._names_in_the_package(ours).items():
        if "temporal_positions" not in name and "embedding" not in name:
            theirs = package.state_dict()[name]
            assert torch.allclose(weights.std(), theirs.std(), rtol=0.25, atol=1e-6), name


# ---- drawings


def test_drawings():
    from tests.course.test_pictures import assert_readable
    from vivit_edu.course.schematics import frames

    torch.manual_seed(0)
    space, time = torch.rand(3, 4, 4).softmax(dim=-1), torch.rand(3, 3).softmax(dim=-1)
    clip, mask = torch.rand(1, 6, 8, 8), torch.rand(6, 8, 8).round()
    sizes = {0.02: (0.02, [0.7, 0.7, 0.7]), 0.5: (0.6, [0.1, 0.0, 0.2])}
    for figure in (
        frames.model2(),
        frames.folding(),
        frames.runs({"one": [[0.7, 0.1]] * 3, "other": [[0.7, 0.7]] * 3}),
        frames.orders({"flat": [0.1] * 24, "not": list(range(24))}),
        frames.sweep({"as they are": sizes, "a tenth": sizes}),
        frames.masks_and_weights(space, time),
        frames.where_and_when(clip, mask, space[0, :3].view(3, 2, 2), time[0], "a clip"),
        frames.where_and_when(clip, None, space[0, :3].view(3, 2, 2), time[0], "a clip"),
    ):
        assert_readable(figure)
