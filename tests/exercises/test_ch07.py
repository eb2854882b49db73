"""Chapter 07: what its checks accept and refuse, the copying of weights behind them, and its drawings."""

import copy

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from tests.exercises.cases import run_cases
from tests.exercises.test_ch05 import ByLinear, ByParameters
from vivit_edu import MultiHeadAttention, TubeletEmbedding, attention_maps
from vivit_edu.attention import over_space, over_time
from vivit_edu.course.checks import CheckFailed, ch06, ch07, ch08
from vivit_edu.course.ready import ch06 as finished_ch06
from vivit_edu.course.ready import ch07 as finished
from vivit_edu.course.ready import ch08 as finished_ch08
from vivit_edu.course.ready.ch05 import ClassifierHead
from vivit_edu.vivit import FactorisedSelfAttention

# ---- 07.1 two folds


def space_by_einops(attention, tokens):
    folded = rearrange(tokens, "b nt s d -> (b nt) s d")
    return rearrange(attention(folded), "(b nt) s d -> b nt s d", b=len(tokens))


def time_by_einops(attention, tokens):
    folded = rearrange(tokens, "b nt s d -> (b s) nt d")
    return rearrange(attention(folded), "(b s) nt d -> b nt s d", b=len(tokens))


def space_by_flatten(attention, tokens):
    return attention(tokens.flatten(0, 1)).view_as(tokens)


def time_by_transpose(attention, tokens):
    b, t, s, d = tokens.shape
    return attention(tokens.transpose(1, 2).reshape(b * s, t, d)).view(b, s, t, d).transpose(1, 2)


def space_by_loop(attention, tokens):
    return torch.stack([attention(frame) for frame in tokens.unbind(1)], dim=1)


def time_by_loop(attention, tokens):
    y = torch.zeros_like(tokens)
    for place in range(tokens.shape[2]):
        y[:, :, place] = attention(tokens[:, :, place])
    return y


def space_with_time_in_front(attention, tokens):
    folded = rearrange(tokens, "b nt s d -> (nt b) s d")
    return rearrange(attention(folded), "(nt b) s d -> b nt s d", b=len(tokens))


def time_by_swapaxes(attention, tokens):
    turned = tokens.swapaxes(1, 2)
    return attention(turned.flatten(0, 1)).unflatten(0, turned.shape[:2]).swapaxes(1, 2)


def time_clip_by_clip(attention, tokens):
    return torch.stack([attention(clip.transpose(0, 1)).transpose(0, 1) for clip in tokens])


def through(fold, unfold):
    """A fold and an unfold by einops, with all sizes that the pattern needs."""

    def over(attention, tokens):
        sizes = {k: n for k, n in zip(("b", "nt", "s"), tokens.shape) if k in unfold}
        return rearrange(attention(rearrange(tokens, f"b nt s d -> {fold}")), f"{unfold} -> b nt s d", **sizes)

    return over


def time_by_view(attention, tokens):
    b, t, s, d = tokens.shape
    return attention(tokens.view(b * s, t, d)).view(b, t, s, d)


def time_unfolded_by_view(attention, tokens):
    b, t, s, d = tokens.shape
    return attention(rearrange(tokens, "b nt s d -> (b s) nt d")).view(b, t, s, d)


def space_of_three_clips(attention, tokens):
    folded = rearrange(tokens, "b nt s d -> (b nt) s d")
    return rearrange(attention(folded), "(b nt) s d -> b nt s d", b=3)


def both(pair):
    """Two functions as the check gets them, spread out."""
    return lambda check: check(*pair)


def folds(space=space_by_einops, time=time_by_einops, name="pair"):
    pair = space, time

    def solution():
        return pair

    solution.__name__ = name
    return solution


test_folds = run_cases(
    lambda solution: ch07.check_folds(*solution()),
    right=[
        folds(name="einops"),
        folds(space_by_flatten, time_by_transpose, name="flatten and transpose"),
        folds(space_with_time_in_front, time_by_swapaxes, name="other orders"),
    ],
    wrong={
        "exchanged": (folds(time_by_einops, space_by_einops), "over_space: this is attention over time"),
        "space twice": (folds(time=space_by_einops), "over_time: this is attention over space"),
        "view": (folds(time=time_by_view), "view and reshape keep the order in memory"),
        "unfolded by view": (folds(time=time_unfolded_by_view), "unfolded by view or reshape"),
        "other order back": (folds(time=through("(b s) nt d", "(s b) nt d")), "clips of the batch got mixed up"),
        "other order there": (folds(through("(nt b) s d", "(b nt) s d")), "clips of the batch got mixed up"),
        "over the batch": (folds(through("(nt s) b d", "(nt s) b d")), "one clip sees another"),
        "clips and times joined": (folds(through("s (b nt) d", "s (b nt) d")), "clips and time indices were joined"),
        "clips and places joined": (folds(time=through("nt (b s) d", "nt (b s) d")), "clips and places were joined"),
        "all at once": (folds(through("b (nt s) d", "b (nt s) d")), "as in Model 1"),
        "four axes": (folds(lambda a, x: a(x)), "over_space: your code raised"),
        "not unfolded": (folds(lambda a, x: a(x.flatten(0, 1))), r"\[12, 5, 8\], expected \[3, 4, 5, 8\]"),
        "left transposed": (
            folds(time=lambda a, x: rearrange(time_by_einops(a, x), "b nt s d -> b s nt d")),
            "right axes in another order",
        ),
        "always three clips": (
            folds(space_of_three_clips),
            "(?s)over_space.*b=len.*With other sizes it was right",
        ),
        "a loop over times": (folds(space_by_loop), "over_space: .* attention was called 4 times.*call it once"),
        "a loop over places": (folds(time=time_by_loop), "attention was called 5 times"),
        "a loop over clips": (folds(time=time_clip_by_clip), "attention was called 3 times"),
        "no attention": (folds(lambda a, x: x), "nothing attended"),
        "residual": (folds(time=lambda a, x: x + time_by_einops(a, x)), "residual connection belongs in the block"),
        "no_grad": (folds(torch.no_grad()(space_by_einops)), "no gradient reaches"),
        "detached": (folds(lambda a, x: space_by_einops(a, x.detach())), "no gradient reaches x"),
        "train mode": (folds(lambda a, x: space_by_einops(a.train(), x)), "left in another mode"),
        "squeezed": (folds(time=lambda a, x: time_by_einops(a, x).squeeze()), "With other sizes it was right"),
        "float32": (folds(lambda a, x: space_by_einops(a.float(), x.float())), "float64"),
        "nothing returned": (folds(time=lambda a, x: None), "over_time is None"),
    },
)

# ---- 07.2 the block


class Widen(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.second(F.gelu(self.first(x)))


class Plain(nn.Module):
    def __init__(self, dim, heads, mlp_dim):
        super().__init__()
        self.norm_space = nn.LayerNorm(dim, eps=1e-6)
        self.norm_time = nn.LayerNorm(dim, eps=1e-6)
        self.norm_mlp = nn.LayerNorm(dim, eps=1e-6)
        self.space_attention = MultiHeadAttention(dim, heads)
        self.time_attention = MultiHeadAttention(dim, heads)
        self.mlp = Widen(dim, mlp_dim)

    def forward(self, z):
        y = space_by_einops(self.space_attention, self.norm_space(z)) + z
        y = time_by_einops(self.time_attention, self.norm_time(y)) + y
        return self.mlp(self.norm_mlp(y)) + y


class StepByStep(Plain):
    def forward(self, z):
        residual = z
        z = self.norm_space(z)
        z = space_by_flatten(self.space_attention, z)
        z = residual + z
        residual = z
        z = self.norm_time(z)
        z = time_by_transpose(self.time_attention, z)
        z = residual + z
        return torch.add(z, self.mlp(self.norm_mlp(z)))


class WithLoops(Plain):
    def __init__(self, dim, heads, mlp_dim):
        super().__init__(dim, heads, mlp_dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, z):
        branches = (
            lambda y: space_by_loop(self.space_attention, self.norm_space(y)),
            lambda y: time_clip_by_clip(self.time_attention, self.norm_time(y)),
            lambda y: self.mlp(self.norm_mlp(y)),
        )
        for branch in branches:
            z = z + branch(z)
        return z


class SeparateMaps(nn.Module):
    """An attention with a linear map each for queries, keys and values."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, z):
        q, k, v = (rearrange(f(z), "b n (heads d) -> b heads n d", heads=self.heads) for f in (self.q, self.k, self.v))
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)"))


class ThreeMaps(Plain):
    def __init__(self, dim, heads, mlp_dim):
        super().__init__(dim, heads, mlp_dim)
        self.space_attention, self.time_attention = SeparateMaps(dim, heads), SeparateMaps(dim, heads)


def forward_of(function):
    """A class like Plain with another forward, as a student would write it into the cell."""

    class FactorisedBlock(Plain):
        forward = function

    return FactorisedBlock


def made_with(change):
    class FactorisedBlock(Plain):
        def __init__(self, dim, heads, mlp_dim):
            super().__init__(dim, heads, mlp_dim)
            change(self, dim, heads, mlp_dim)

    return FactorisedBlock


def space(block, z):
    return space_by_einops(block.space_attention, block.norm_space(z))


def time(block, z):
    return time_by_einops(block.time_attention, block.norm_time(z))


def mlp(block, z):
    return block.mlp(block.norm_mlp(z))


def time_first(self, z):
    y = z + time(self, z)
    y = y + space(self, y)
    return y + mlp(self, y)


def no_residuals(self, z):
    return mlp(self, time(self, space(self, z)))


def attentions_without_residual(self, z):
    y = time(self, space(self, z))
    return y + mlp(self, y)


def no_time_residual(self, z):
    y = time(self, z + space(self, z))
    return y + mlp(self, y)


def no_mlp_residual(self, z):
    y = z + space(self, z)
    return mlp(self, y + time(self, y))


def no_mlp(self, z):
    y = z + space(self, z)
    return y + time(self, y)


def parallel(self, z):
    y = z + space(self, z) + time(self, z)
    return y + mlp(self, y)


def time_adds_z(self, z):
    y = time(self, space(self, z) + z) + z
    return mlp(self, y) + y


def mlp_adds_z(self, z):
    y = space(self, z) + z
    y = time(self, y) + y
    return mlp(self, y) + z


def mlp_of_the_first_step(self, z):
    y_s = space(self, z) + z
    y_t = time(self, y_s) + y_s
    return mlp(self, y_s) + y_t


def mlp_adds_the_first_step(self, z):
    y_s = space(self, z) + z
    y_t = time(self, y_s) + y_s
    return mlp(self, y_t) + y_s


def mlp_of_the_input(self, z):
    y = space(self, z) + z
    y = time(self, y) + y
    return mlp(self, z) + y


def z_overwritten(self, z):
    z = self.norm_space(z)
    z = z + space_by_einops(self.space_attention, z)
    z = self.norm_time(z)
    z = z + time_by_einops(self.time_attention, z)
    z = self.norm_mlp(z)
    return z + self.mlp(z)


def post_norm(self, z):
    z = self.norm_space(z + space_by_einops(self.space_attention, z))
    z = self.norm_time(z + time_by_einops(self.time_attention, z))
    return self.norm_mlp(z + self.mlp(z))


def no_norms(self, z):
    z = z + space_by_einops(self.space_attention, z)
    z = z + time_by_einops(self.time_attention, z)
    return z + self.mlp(z)


def no_norm_before_time(self, z):
    y = z + space(self, z)
    y = y + time_by_einops(self.time_attention, y)
    return y + mlp(self, y)


def one_norm_for_both(self, z):
    y = z + space(self, z)
    y = y + time_by_einops(self.time_attention, self.norm_space(y))
    return y + mlp(self, y)


def one_attention_for_both(self, z):
    y = z + space(self, z)
    y = y + time_by_einops(self.space_attention, self.norm_time(y))
    return y + mlp(self, y)


def wrong_axes(self, z):
    y = z + time_by_einops(self.space_attention, self.norm_space(z))
    y = y + space_by_einops(self.time_attention, self.norm_time(y))
    return y + mlp(self, y)


def space_twice(self, z):
    y = z + space(self, z)
    y = y + space_by_einops(self.time_attention, self.norm_time(y))
    return y + mlp(self, y)


def one_sequence(self, z):
    y = z + self.space_attention(self.norm_space(z).flatten(1, 2)).view_as(z)
    y = y + self.time_attention(self.norm_time(y).flatten(1, 2)).view_as(y)
    return y + mlp(self, y)


def no_fold(self, z):
    y = z + self.space_attention(self.norm_space(z))
    return y + mlp(self, y)


def y_in_place(self, z):
    y = z + space(self, z)
    y += time(self, y)
    y += mlp(self, y)
    return y


def z_in_place(self, z):
    z += space(self, z)
    z += time(self, z)
    z += mlp(self, z)
    return z


def with_dropout(self, z):
    y = z + F.dropout(space(self, z), 0.1, self.training)
    y = y + time(self, y)
    return y + mlp(self, y)


def time_without_gradients(self, z):
    y = z + space(self, z)
    with torch.no_grad():
        added = time(self, y)
    return (y + added) + mlp(self, y + added)


def one_module(self, *sizes):
    self.time_attention = self.space_attention


def one_norm(self, *sizes):
    self.norm_time = self.norm_space


def four_heads(self, dim, heads, mlp_dim):
    self.time_attention = MultiHeadAttention(dim, 4)


def relu(self, dim, heads, mlp_dim):
    self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.ReLU(), nn.Linear(mlp_dim, dim))


def other_names(self, *sizes):
    self.temporal_attention = self.time_attention
    del self.time_attention


def frozen(self, *sizes):
    self.time_attention.requires_grad_(False)


test_block = run_cases(
    ch07.check_factorised_block,
    right=[Plain, StepByStep, WithLoops, ThreeMaps],
    wrong={
        "time first": (forward_of(time_first), "here attention over time comes first: put space first"),
        "no residuals": (forward_of(no_residuals), "no residual anywhere"),
        "attentions without": (forward_of(attentions_without_residual), "residuals around both attentions"),
        "no residual around time": (forward_of(no_time_residual), "residual around the attention over time"),
        "no residual around the MLP": (forward_of(no_mlp_residual), "residual around the MLP is missing"),
        "no MLP": (forward_of(no_mlp), "the MLP is missing"),
        "no attention over time": (
            forward_of(lambda s, z: (y := z + space(s, z)) + mlp(s, y)),
            "attention over time is not used by the next step, or this attention is missing",
        ),
        "MLP of the first step": (
            forward_of(mlp_of_the_first_step),
            "sees the tokens from before the attention over t",
        ),
        "MLP adds the first": (forward_of(mlp_adds_the_first_step), "adds the tokens from before the attention over t"),
        "parallel": (forward_of(parallel), "in parallel"),
        "time adds z": (forward_of(time_adds_z), "adds the block's input z, so the step before"),
        "MLP adds z": (forward_of(mlp_adds_z), "both attentions are lost"),
        "MLP of the input": (forward_of(mlp_of_the_input), "the MLP sees the block's input"),
        "z overwritten": (forward_of(z_overwritten), "carries the normalised tokens"),
        "post-norm": (forward_of(post_norm), "post-norm"),
        "no norms": (forward_of(no_norms), "missing in all three"),
        "no norm before time": (forward_of(no_norm_before_time), "missing before the attention over time"),
        "one norm for both": (forward_of(one_norm_for_both), "norm_space is used before both"),
        "one attention for both": (forward_of(one_attention_for_both), "space_attention is used twice"),
        "wrong axes": (forward_of(wrong_axes), "over the wrong axes"),
        "space twice": (forward_of(space_twice), "both attentions run over space"),
        "one sequence": (forward_of(one_sequence), "as in Model 1"),
        "no fold": (forward_of(no_fold), "your code raised"),
        "y in place": (forward_of(y_in_place), "training would stop"),
        "z in place": (forward_of(z_in_place), "changes the z"),
        "dropout": (forward_of(with_dropout), "train mode"),
        "no gradients in one branch": (forward_of(time_without_gradients), "no gradient reaches block.norm_time"),
        "a shared attention": (made_with(one_module), "one module"),
        "a shared norm": (made_with(one_norm), "two of the three LayerNorms"),
        "always four heads": (made_with(four_heads), "with heads=3, time_attention has 4 heads"),
        "ReLU": (made_with(relu), "ReLU"),
        "other names": (made_with(other_names), "no part `time_attention`"),
        "frozen": (made_with(frozen), "requires_grad=False"),
        "nothing returned": (forward_of(lambda s, z: None), "return"),
    },
)

# ---- 07.4 time first


class TimeFirst(Plain):
    forward = time_first


class TimeFirstByLoops(WithLoops):
    def forward(self, z):
        y = z + time_by_loop(self.time_attention, self.norm_time(z))
        y = y + space_by_loop(self.space_attention, self.norm_space(y))
        return y + self.mlp(self.norm_mlp(y))


class TimeFirstByTransposing(Plain):
    """The grid turned round: every place is a row."""

    def forward(self, z):
        z = z.transpose(1, 2)
        y = space_by_einops(self.time_attention, self.norm_time(z)) + z
        y = time_by_einops(self.space_attention, self.norm_space(y)) + y
        return (self.mlp(self.norm_mlp(y)) + y).transpose(1, 2)


def calls_the_other(self, z):
    return Plain.forward(self, z)


def transposed(self, z):
    return Plain.forward(self, z.transpose(1, 2)).transpose(1, 2)


def attentions_exchanged(self, z):
    y = z + time_by_einops(self.space_attention, self.norm_time(z))
    y = y + space_by_einops(self.time_attention, self.norm_space(y))
    return y + mlp(self, y)


def norms_exchanged(self, z):
    y = z + time_by_einops(self.time_attention, self.norm_space(z))
    y = y + space_by_einops(self.space_attention, self.norm_time(y))
    return y + mlp(self, y)


def space_from_z(self, z):
    y = time(self, z) + z
    y = space(self, z) + y
    return mlp(self, y) + y


def space_lost(self, z):
    y_t = time(self, z) + z
    y_s = space(self, y_t) + y_t  # noqa: F841
    return mlp(self, y_t) + y_t


def time_lost(self, z):
    y_t = time(self, z) + z  # noqa: F841
    y_s = space(self, z) + z
    return mlp(self, y_s) + y_s


def space_adds_z(self, z):
    y = time(self, z) + z
    y = space(self, y) + z
    return mlp(self, y) + y


def mlp_first(self, z):
    y = mlp(self, z) + z
    y = time(self, y) + y
    return space(self, y) + y


def mlp_between(self, z):
    y = time(self, z) + z
    y = mlp(self, y) + y
    return space(self, y) + y


def mlp_forgotten(self, z):
    y = time(self, z) + z
    return space(self, y) + y


test_time_first = run_cases(
    ch07.check_time_first,
    right=[TimeFirst, TimeFirstByLoops, TimeFirstByTransposing],
    wrong={
        "the old forward": (forward_of(calls_the_other), "the paper's order, space first"),
        "the grid turned round": (forward_of(transposed), "the grid was turned round"),
        "attentions exchanged": (forward_of(attentions_exchanged), "the attentions are exchanged"),
        "norms exchanged": (forward_of(norms_exchanged), "the LayerNorms are exchanged"),
        "space sees z": (forward_of(space_from_z), "in parallel"),
        "space adds z": (forward_of(space_adds_z), "adds the block's input z, so the step before"),
        "MLP adds z": (forward_of(lambda s, z: mlp(s, mlp_forgotten(s, z)) + z), "both attentions are lost"),
        "MLP first": (forward_of(mlp_first), "MLP comes before the attentions"),
        "MLP between": (forward_of(mlp_between), "MLP comes between"),
        "no MLP": (forward_of(mlp_forgotten), "the MLP is missing"),
        "only time": (forward_of(lambda s, z: (y := z + time(s, z)) + mlp(s, y)), "over space is not used"),
        "space lost": (forward_of(space_lost), "result of the attention over space is not used by the next step"),
        "time lost": (forward_of(time_lost), "result of the attention over time is not used by the next step"),
        "z in place": (forward_of(z_in_place), "changes the z"),
        "no gradients": (forward_of(torch.no_grad()(time_first)), "no gradient reaches"),
        "open": (forward_of(lambda s, z: (_ for _ in ()).throw(NotImplementedError())), "still to be written"),
    },
)

# ---- 07.3 the model


class Whole(nn.Module):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64):
        super().__init__()
        self.embedding = TubeletEmbedding(clip_shape, dim, tubelet)
        nt, nh, nw = self.embedding.grid
        self.positions = nn.Parameter(0.5 * torch.randn(1, nt, nh * nw, dim))
        self.blocks = nn.ModuleList(Plain(dim, heads, mlp_dim) for _ in range(depth))
        self.head = ClassifierHead(dim, classes, "mean")

    def forward(self, clips):
        z = self.embedding(clips) + self.positions
        for block in self.blocks:
            z = block(z)
        return self.head(rearrange(z, "b nt s d -> b (nt s) d"))


class WithFlatten(Whole):
    def forward(self, clips):
        z = nn.Sequential(*self.blocks)(self.positions + self.embedding(clips))
        return self.head(z.flatten(1, 2))


class HeadByHand(Whole):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.positions = nn.Parameter(torch.empty_like(self.positions).normal_(std=0.5))

    def forward(self, clips):
        z = self.embedding(clips) + self.positions
        for k in range(len(self.blocks)):
            z = self.blocks[k](z)
        return self.head.linear(self.head.norm(z)).mean(dim=(1, 2))


def model(function):
    class Model3(Whole):
        forward = function

    return Model3


def model_with(change):
    class Model3(Whole):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            change(self)

    return Model3


def through_blocks(self, z):
    for block in self.blocks:
        z = block(z)
    return z


def read(self, z):
    return self.head(z.flatten(1, 2))


def no_positions(self, clips):
    return read(self, through_blocks(self, self.embedding(clips)))


def positions_after(self, clips):
    return read(self, through_blocks(self, self.embedding(clips)) + self.positions)


def positions_each_time(self, clips):
    z = self.embedding(clips)
    for block in self.blocks:
        z = block(z + self.positions)
    return read(self, z)


def z_not_handed_on(self, clips):
    z = self.embedding(clips) + self.positions
    for block in self.blocks:
        y = block(z)
    return read(self, y)


def first_block(self, clips):
    return read(self, self.blocks[0](self.embedding(clips) + self.positions))


def grid_into_the_head(self, clips):
    return self.head(through_blocks(self, self.embedding(clips) + self.positions))


def last_frame(self, clips):
    return self.head(through_blocks(self, self.embedding(clips) + self.positions)[:, -1])


def first_token(self, clips):
    z = through_blocks(self, self.embedding(clips) + self.positions)
    return self.head.linear(self.head.norm(z[:, 0, 0]))


def mean_first(self, clips):
    z = through_blocks(self, self.embedding(clips) + self.positions).mean(dim=(1, 2))
    return self.head.linear(self.head.norm(z))


def norm_twice(self, clips):
    z = through_blocks(self, self.embedding(clips) + self.positions)
    return read(self, self.head.norm(z))


def without_gradients(self, clips):
    with torch.no_grad():
        z = self.embedding(clips) + self.positions
    return read(self, through_blocks(self, z))


def hard_coded(self, clips):
    z = through_blocks(self, self.embedding(clips) + self.positions)
    return self.head(z.view(-1, 16, z.shape[-1]))


def mean_over_time(self, clips):
    return self.head(through_blocks(self, self.embedding(clips) + self.positions).mean(dim=1))


def mean_over_places(self, clips):
    return self.head(through_blocks(self, self.embedding(clips) + self.positions).mean(dim=2))


def small_positions(self):
    nn.init.normal_(self.positions, std=0.02)


def uniform_positions(self):
    nn.init.uniform_(self.positions)


def four_heads_in_blocks(self):
    self.blocks = nn.ModuleList(Plain(12, 4, 20) for _ in range(3))


def sixty_four_wide(self):
    self.blocks = nn.ModuleList(Plain(12, 3, 64) for _ in range(3))


def two_blocks(self):
    self.blocks = self.blocks[:2]


def thirty_two(self):
    self.blocks = nn.ModuleList(Plain(32, 4, 64) for _ in range(3))


def thirty_two_with_three_heads(self):
    self.blocks = nn.ModuleList(Plain(33, 3, 20) for _ in range(3))


def unused_cls(self):
    self.cls = nn.Parameter(torch.zeros(1, 1, 12))


class WithoutSuper(nn.Module):
    def __init__(self, *sizes):
        self.sizes = sizes


def plain_list(self):
    blocks = list(self.blocks)
    del self.blocks
    self.blocks = blocks


def repeated(self):
    self.blocks = nn.ModuleList([self.blocks[0]] * len(self.blocks))


def sequence_of_positions(self):
    self.positions = nn.Parameter(self.positions.data.flatten(1, 2))


def positions_of_the_notebook(self):
    self.positions = nn.Parameter(torch.randn(1, 4, 4, 12))


def equal_times(self):
    self.positions = nn.Parameter(self.positions.data[:, :1].repeat(1, 3, 1, 1))


def no_parameter(self):
    positions = self.positions.data
    del self.positions
    self.positions = positions


def zero_positions(self):
    nn.init.zeros_(self.positions)


def eleven_classes(self):
    self.head = ClassifierHead(12, 11, "mean")


def linear_head(self):
    self.head = nn.Linear(12, 7)


def cls_head(self):
    self.head.pool = "cls"


test_model3 = run_cases(
    ch07.check_model3,
    right=[Whole, WithFlatten, HeadByHand],
    wrong={
        "no positions": (model(no_positions), "positions are not used"),
        "positions after": (model(positions_after), "after the blocks"),
        "positions in every block": (model(positions_each_time), "before every block"),
        "z not handed on": (model(z_not_handed_on), "only the last block's result"),
        "first block": (model(first_block), "only the first block"),
        "the grid into the head": (model(grid_into_the_head), "the head averages over time and leaves the places"),
        "the last time index": (model(last_frame), "only the last time index"),
        "the first token": (model(first_token), "only the first token"),
        "mean, then norm": (model(mean_first), "mean is taken first"),
        "LayerNorm twice": (model(norm_twice), "LayerNorm is applied twice"),
        "softmax": (model(lambda s, clips: Whole.forward(s, clips).softmax(1)), "softmax follows"),
        "no gradients": (model(without_gradients), "no gradient reaches"),
        "the notebook's size": (model(hard_coded), "your code raised"),
        "head with cls": (model_with(cls_head), "only the first token"),
        "a list": (model_with(plain_list), "plain list"),
        "one block": (model_with(repeated), "there is only 1 block, used 3 times"),
        "positions of a sequence": (model_with(sequence_of_positions), "a sequence"),
        "the notebook's positions": (model_with(positions_of_the_notebook), r"\[1, 4, 4, 12\]"),
        "the same at all times": (model_with(equal_times), "same at every time"),
        "no Parameter": (model_with(no_parameter), "nn.Parameter"),
        "zero positions": (model_with(zero_positions), "standard deviation of 0"),
        "0.02": (model_with(small_positions), "standard deviation of 0.0.*0.5 . torch.randn"),
        "rand": (model_with(uniform_positions), "a mean of 0.5"),
        "always four heads": (model_with(four_heads_in_blocks), "with heads=3, the space_attention of a block has 4"),
        "always 64 wide": (model_with(sixty_four_wide), "with mlp_dim=20, a block has an MLP of width 64"),
        "two blocks": (model_with(two_blocks), "with depth=3 there are 2 blocks"),
        "the notebook's width": (model_with(thirty_two_with_three_heads), "your code raised .*line .* of your code"),
        "the notebook's numbers": (model_with(thirty_two), "with heads=3"),
        "mean over time": (model(mean_over_time), "averaged over time before the head"),
        "mean over places": (model(mean_over_places), "averaged over places before the head"),
        "a cls token that is not used": (model_with(unused_cls), "reaches model.cls: it is never used"),
        "no super": (WithoutSuper, "must begin with super"),
        "open": (model(lambda s, clips: (_ for _ in ()).throw(NotImplementedError())), "still to be written"),
        "eleven classes": (model_with(eleven_classes), "gives 11 logits"),
        "a linear head": (model_with(linear_head), "no part `norm`"),
        "nothing returned": (model(lambda s, clips: None), "return"),
    },
)

# ---- 07.5 silence


def silence_plainly(blocks, part):
    for block in blocks:
        attention = getattr(block, part)
        nn.init.zeros_(attention.out.weight)
        nn.init.zeros_(attention.out.bias)
        attention.requires_grad_(False)


def silence_all_of_it(blocks, part):
    for block in blocks:
        for parameter in getattr(block, part).parameters():
            parameter.requires_grad = False
            parameter.zero_()


def silence_the_output(blocks, part):
    for out in (block.get_submodule(part).out for block in blocks):
        out.weight.data *= 0
        out.bias.data *= 0
        out.requires_grad_(False)


def silence_weight_only(blocks, part):
    for block in blocks:
        nn.init.zeros_(getattr(block, part).out.weight)
        getattr(block, part).requires_grad_(False)


def silence_not_frozen(blocks, part):
    for block in blocks:
        for parameter in getattr(block, part).out.parameters():
            nn.init.zeros_(parameter)


def silence_first(blocks, part):
    silence_plainly(blocks[:1], part)


def silence_time(blocks, part):
    silence_plainly(blocks, "time_attention")


def silence_and_freeze_block(blocks, part):
    silence_plainly(blocks, part)
    for block in blocks:
        block.requires_grad_(False)


def silence_by_identity(blocks, part):
    for block in blocks:
        setattr(block, part, nn.Identity())


def silence_norm_too(blocks, part):
    silence_plainly(blocks, part)
    for block in blocks:
        nn.init.zeros_(block.norm_space.weight)


def silence_by_attribute(blocks, part):
    for block in blocks:
        block.part.out.weight.zero_()


def silence_without_no_grad(blocks, part):
    for block in blocks:
        getattr(block, part).out.weight.zero_()


def silence_by_hook(blocks, part):
    for block in blocks:
        getattr(block, part).register_forward_hook(lambda module, given, y: torch.zeros_like(y))


def silence_copies(blocks, part):
    silence_plainly(copy.deepcopy(blocks), part)


def silence_queries(blocks, part):
    for block in blocks:
        nn.init.zeros_(getattr(block, part).qkv.weight)
        getattr(block, part).requires_grad_(False)


def silence_in_eval(blocks, part):
    silence_plainly(blocks, part)
    for block in blocks:
        block.eval()


test_silence = run_cases(
    ch07.check_silence,
    right=[silence_plainly, silence_all_of_it, silence_the_output],
    wrong={
        "weight only": (silence_weight_only, "its bias is not"),
        "not frozen": (silence_not_frozen, "wake it up"),
        "first block": (silence_first, "only the first block"),
        "always time": (silence_time, "time_attention.out.weight has changed"),
        "the block frozen": (silence_and_freeze_block, "is frozen too"),
        "Identity": (silence_by_identity, "an Identity now: keep the module"),
        "None": (
            lambda blocks, part: [setattr(b, part, None) for b in blocks] and None,
            "is None now: keep the module",
        ),
        "a hook": (silence_by_hook, "silenced by a hook"),
        "copies": (silence_copies, "that you were given, not copies"),
        "the norm too": (silence_norm_too, "norm_space.weight has changed"),
        "block.part": (silence_by_attribute, "has no attribute 'part'"),
        "no no_grad": (silence_without_no_grad, "a leaf Variable that requires grad"),
        "queries, keys and values": (silence_queries, "still adds something"),
        "eval": (silence_in_eval, "eval mode"),
        "nothing": (lambda blocks, part: None, "still adds something"),
        "gradients off": (
            lambda blocks, part: (torch.set_grad_enabled(False), silence_plainly(blocks, part)) and None,
            "gradients switched off",
        ),
    },
)

# ---- 07.7 three starts


def zero_loop(block):
    for parameter in block.time_attention.parameters():
        nn.init.zeros_(parameter)


@torch.no_grad()
def zero_by_state(block):
    for value in block.time_attention.state_dict().values():
        value.zero_()


def zero_by_data(block):
    for layer in (block.time_attention.qkv, block.time_attention.out):
        layer.weight.data.fill_(0)
        layer.bias.data.fill_(0)


def output_projection(block):
    nn.init.zeros_(block.time_attention.out.weight)
    nn.init.zeros_(block.time_attention.out.bias)


def with_no_grad(block):
    with torch.no_grad():
        for parameter in block.time_attention.out.parameters():
            parameter.zero_()
    return block


def values_alone(block):  # unusual, and right: W_O is not zero, so W_V gets a gradient at once
    ch07.with_zeros(block, ["W_V"])
    nn.init.zeros_(block.time_attention.out.bias)


def copy_by_state(block):
    block.time_attention.load_state_dict(block.space_attention.state_dict())


def copy_deep(block):
    block.time_attention = copy.deepcopy(block.space_attention)


def copy_by_zip(block):
    with torch.no_grad():
        for mine, other in zip(block.time_attention.parameters(), block.space_attention.parameters()):
            mine.copy_(other)


def starts(everything=zero_loop, zero=output_projection, as_copy=copy_by_state, name="three"):
    three = [everything, zero, as_copy]
    for function, called in zip(three, ("all_zero", "start_at_zero", "start_as_copy")):
        if hasattr(function, "__name__"):
            function.__name__ = called

    def solution():
        return three

    solution.__name__ = name
    return solution


def zeros(*names, then=lambda block: None):
    def start(block):
        for name in names:
            for parameter in block.get_submodule(name).parameters():
                nn.init.zeros_(parameter)
        then(block)

    return start


def bias_alone(block):
    nn.init.zeros_(block.time_attention.out.bias)


def weight_alone(block):
    nn.init.zeros_(block.time_attention.out.weight)


def weights_alone(block):
    nn.init.zeros_(block.time_attention.qkv.weight)
    nn.init.zeros_(block.time_attention.out.weight)


@torch.no_grad()
def small(block):
    block.time_attention.out.weight.mul_(1e-3)
    block.time_attention.out.bias.zero_()


def width_written_in(block):
    block.time_attention.out.weight.data = torch.zeros(8, 8)
    block.time_attention.out.bias.data = torch.zeros(8)


def shared(block):
    block.time_attention = block.space_attention


def shared_tensors(block):
    block.time_attention.qkv.weight = block.space_attention.qkv.weight


def shared_memory(block):
    for mine, other in zip(block.time_attention.parameters(), block.space_attention.parameters()):
        mine.data = other.data


def values_without_their_bias(block):
    block.time_attention.qkv.weight.data.chunk(3)[2].zero_()
    block.time_attention.out.bias.data.zero_()


def copy_weights_only(block):
    block.time_attention.qkv.weight.data = block.space_attention.qkv.weight.data.clone()
    block.time_attention.out.weight.data = block.space_attention.out.weight.data.clone()


def copy_backwards(block):
    block.space_attention.load_state_dict(block.time_attention.state_dict())


def copy_norm_too(block):
    copy_by_state(block)
    block.norm_time.load_state_dict(block.norm_space.state_dict())


test_starts = run_cases(
    lambda solution: ch07.check_starts(*solution()),
    right=[
        starts(name="plain"),
        starts(zero_by_state, with_no_grad, copy_deep, name="with no_grad and deepcopy"),
        starts(zero_by_data, values_alone, copy_by_zip, name="by data, values, zip"),
    ],
    wrong={
        "biases left": (starts(weights_alone), "all_zero: time_attention.qkv.bias is not zero"),
        "the whole block": (starts(lambda b: [nn.init.zeros_(p) for p in b.parameters()] and None), "norm_space"),
        "the trap": (starts(zero=zeros("time_attention")), "this is the trap"),
        "values and output": (
            starts(zero=lambda b: ch07.with_zeros(b, ["W_V", "W_O"]) and None),
            "this is the trap",
        ),
        "queries and keys too": (
            starts(zero=lambda b: ch07.with_zeros(b, ["W_Q", "W_K", "W_O"]) and None),
            "W_K, W_Q never get a gradient",
        ),
        "its bias left": (starts(zero=weight_alone), "its bias is not"),
        "bias alone": (starts(zero=bias_alone), "still adds something"),
        "small": (starts(zero=small), "still adds something"),
        "values, not their bias": (starts(zero=values_without_their_bias), "same vector.*W_O and all the biases"),
        "queries, keys, values": (starts(zero=zeros("time_attention.qkv")), "same vector to every token"),
        "nothing": (starts(zero=lambda b: None), "start_at_zero: the branch still adds something"),
        "space": (starts(zero=zeros("space_attention.out")), "space_attention.out.weight has changed"),
        "frozen": (
            starts(zero=lambda b: (output_projection(b), b.time_attention.requires_grad_(False)) and None),
            "is frozen",
        ),
        "Identity": (starts(zero=lambda b: setattr(b, "time_attention", nn.Identity())), "another kind of module"),
        "the notebook's width": (starts(zero=width_written_in), "a size is written into the code"),
        "eval": (starts(zero=lambda b: output_projection(b.eval())), "eval mode"),
        "shared": (starts(as_copy=shared), "the same tensors"),
        "shared tensors": (starts(as_copy=shared_tensors), "the same tensors"),
        "shared memory": (starts(as_copy=shared_memory), "the same tensors"),
        "weights only": (starts(as_copy=copy_weights_only), "qkv.bias is not copied"),
        "backwards": (starts(as_copy=copy_backwards), "space_attention.qkv.weight has changed"),
        "norm too": (starts(as_copy=copy_norm_too), "norm_time.weight has changed"),
        "no copy": (starts(as_copy=lambda b: None), "does not have the weights"),
    },
)

# ---- 07.8 who is asleep

EVERYONE = {"W_Q", "W_K", "W_V", "W_O"}


def gradients(block):
    found = dict(zip(("W_Q", "W_K", "W_V"), block.time_attention.qkv.weight.grad.chunk(3)))
    return found | {"W_O": block.time_attention.out.weight.grad}


def backward(block, z):
    block.zero_grad()
    (block(z) - z.roll(1, dims=1)).square().mean().backward()


def trained(block, z, steps=5, optimiser=torch.optim.SGD, lr=0.1, **options):
    """The names whose gradient was not zero in one of the steps. It trains the block that it is given."""
    optimiser, awake = optimiser(block.parameters(), lr=lr, **options), set()
    for _ in range(steps):
        backward(block, z)
        optimiser.step()
        awake |= {name for name, gradient in gradients(block).items() if gradient.any()}
    return awake


def asleep_on_a_copy(block, z):
    return EVERYONE - trained(copy.deepcopy(block), z)


def asleep_by_hand(block, z):
    block = copy.deepcopy(block)
    sleeping = ["W_Q", "W_K", "W_V", "W_O"]
    for _ in range(6):
        loss = (block(z) - z.flip(1)).square().mean()
        block.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in block.parameters():
                parameter -= 0.05 * parameter.grad
        sleeping = [name for name in sleeping if gradients(block)[name].abs().max() == 0]
    return sleeping


def asleep_by_change(block, z):
    """By what has changed after training without weight decay."""
    after = copy.deepcopy(block)
    trained(after, z, steps=6, optimiser=torch.optim.Adam, lr=1e-2)
    old, new = block.time_attention, after.time_attention
    weights = zip(EVERYONE_IN_ORDER, (*old.qkv.weight.chunk(3), old.out.weight))
    later = (*new.qkv.weight.chunk(3), new.out.weight)
    return tuple(name for (name, before), now in zip(weights, later) if torch.equal(before, now))


EVERYONE_IN_ORDER = ("W_Q", "W_K", "W_V", "W_O")


def asleep_after(steps):
    return lambda block, z: EVERYONE - trained(copy.deepcopy(block), z, steps=steps)


def asleep_without_a_copy(block, z):
    return EVERYONE - trained(block, z)


def asleep_first_step(block, z):
    block = copy.deepcopy(block)
    backward(block, z)
    return {name for name, gradient in gradients(block).items() if not gradient.any()}


def asleep_leaves_gradients(block, z):
    backward(block, z)
    return asleep_on_a_copy(block, z)


def asleep_last_step(block, z):
    block = copy.deepcopy(block)
    trained(block, z, steps=1)
    return {name for name, gradient in gradients(block).items() if not gradient.any()}


def asleep_where_zero(block, z):
    attention = block.time_attention
    weights = dict(zip(EVERYONE_IN_ORDER, (*attention.qkv.weight.chunk(3), attention.out.weight)))
    return {name for name, weight in weights.items() if not weight.any()}


def asleep_by_decay(block, z):
    after = copy.deepcopy(block)
    trained(after, z, optimiser=torch.optim.AdamW, lr=1e-2, weight_decay=0.1)
    old, new = block.time_attention, after.time_attention
    pairs = zip((*old.qkv.weight.chunk(3), old.out.weight), (*new.qkv.weight.chunk(3), new.out.weight))
    return {name for name, (before, now) in zip(EVERYONE_IN_ORDER, pairs) if torch.equal(before, now)}


def asleep_without_steps(block, z):
    return EVERYONE - trained(copy.deepcopy(block), z, lr=0.0)


def awake(block, z):
    return trained(copy.deepcopy(block), z)


def asleep_of_all_parameters(block, z):
    block = copy.deepcopy(block)
    trained(block, z)
    return {name for name, parameter in block.named_parameters() if not parameter.grad.any()}


def asleep_qkv_together(block, z):
    block = copy.deepcopy(block)
    trained(block, z)
    sleeping = set() if block.time_attention.out.weight.grad.any() else {"W_O"}
    return sleeping | (set() if block.time_attention.qkv.weight.grad.any() else {"W_Q", "W_K", "W_V"})


def asleep_in_space(block, z):
    block = copy.deepcopy(block)
    block.time_attention, block.space_attention = block.space_attention, block.time_attention
    trained(block, z)
    return {name for name, gradient in gradients(block).items() if not gradient.any()}


def asleep_with_the_sum(block, z):
    block, awake = copy.deepcopy(block), set()
    optimiser = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(10):
        optimiser.zero_grad()
        block(z).sum().backward()
        optimiser.step()
        awake |= {name for name, gradient in gradients(block).items() if gradient.any()}
    return EVERYONE - awake


def asleep_of_width_32(block, z):
    block, awake = copy.deepcopy(block), set()
    optimiser = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(5):
        backward(block, z)
        optimiser.step()
        qkv = block.time_attention.qkv.weight.grad
        found = {"W_Q": qkv[:32], "W_K": qkv[32:64], "W_V": qkv[64:], "W_O": block.time_attention.out.weight.grad}
        awake |= {name for name, gradient in found.items() if gradient.any()}
    return EVERYONE - awake


test_asleep = run_cases(
    ch07.check_asleep,
    right=[asleep_on_a_copy, asleep_by_hand, asleep_by_change],
    wrong={
        "first step": (asleep_first_step, "W_O zero your test finds W_K, W_Q, W_V asleep.*look at several steps"),
        "one step": (asleep_after(1), "look at several steps"),
        "two steps": (asleep_after(2), "W_Q, W_O zero your test finds W_K asleep.*more steps"),
        "last of one": (asleep_last_step, "look at several steps"),
        "no copy": (asleep_without_a_copy, "changes the block"),
        "gradients left": (asleep_leaves_gradients, "leaves gradients"),
        "where a weight is zero": (
            asleep_where_zero,
            "W_O zero your test finds W_O asleep, and it should find noth",
        ),
        "weight decay": (asleep_by_decay, "W_V, W_O zero your test finds W_O, W_V asleep.*weight decay"),
        "no step": (asleep_without_steps, "look at several steps"),
        "awake": (awake, "These are the matrices that learn"),
        "names of parameters": (asleep_of_all_parameters, "the names are W_Q, W_K, W_V and W_O"),
        "qkv together": (asleep_qkv_together, "W_Q, W_K zero your test finds nothing asleep"),
        "space": (asleep_in_space, "your test finds nothing asleep"),
        "always nothing": (lambda block, z: set(), "finds nothing asleep.* two factors"),
        "always all": (lambda block, z: EVERYONE, "These are the matrices that learn"),
        "lr = 3": (lambda block, z: EVERYONE - trained(copy.deepcopy(block), z, lr=3.0, steps=20), "training diverged"),
        "the sum as loss": (asleep_with_the_sum, "training diverged"),
        "the notebook's width": (asleep_of_width_32, "right for D = 32 alone"),
        "True": (lambda block, z: True, "a bool: expected a set"),
        "one name": (lambda block, z: "W_Q", "a str: expected a set"),
        "nothing returned": (lambda block, z: None, "expected a set"),
    },
)

# ---- copying weights, and the drawings


@pytest.mark.parametrize("block", [Plain, WithLoops, ThreeMaps])
def test_parity_with_any_right_block(block, capsys):
    class Model3(Whole):
        def __init__(self, clip_shape, tubelet, classes, dim, depth, heads, mlp_dim):
            super().__init__(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim)
            self.blocks = nn.ModuleList(block(dim, heads, mlp_dim) for _ in range(depth))

    ch07.model3_same_as_package(Model3)
    ch07.block_same_as_vit_pytorch(block)
    assert capsys.readouterr().out.count("agree in all") == 1 + bool(ch07.importlib.util.find_spec("vit_pytorch"))


def test_parity_refuses_a_wrong_model(monkeypatch, capsys):
    with pytest.raises(CheckFailed, match="differ by up to"):
        ch07.model3_same_as_package(model(no_positions))
    if ch07.importlib.util.find_spec("vit_pytorch"):
        with pytest.raises(CheckFailed, match="differ by up to"):
            ch07.block_same_as_vit_pytorch(forward_of(time_first))
    monkeypatch.setattr(ch07.importlib.util, "find_spec", lambda name: None)
    ch07.block_same_as_vit_pytorch(Plain)
    assert "not installed" in capsys.readouterr().out


def test_the_right_answers_here_are_the_package_s():
    attention, z = MultiHeadAttention(8, 2), torch.randn(2, 3, 4, 8)
    torch.testing.assert_close(space_by_einops(attention, z), over_space(attention, z))
    torch.testing.assert_close(time_by_einops(attention, z), over_time(attention, z))


def test_weights_on_all_tokens_are_inside_their_masks():
    from vivit_edu.course.schematics import space_then_time as drawings

    clip_shape, tubelet = (1, 6, 4, 4), (2, 2, 2)
    clips = torch.rand(1, *clip_shape)
    package = ch07.packaged(finished.Model3(clip_shape, tubelet, 2, dim=8, heads=2, mlp_dim=16), clips)
    for layer in attention_maps(package, clips):
        table = drawings.on_all_tokens(layer.weights[0], layer.kind)
        mask = FactorisedSelfAttention.sees(layer.kind, 3, 4)
        assert bool((table[~mask] == 0).all() and (table[mask] > 0).all())
        torch.testing.assert_close(table.sum(dim=1), torch.ones(12))


def test_drawings():
    from tests.course.test_pictures import assert_readable
    from vivit_edu.course.schematics import space_then_time as drawings

    masks = {kind: FactorisedSelfAttention.sees(kind, 4, 4) for kind in ("space", "time")}
    learned = {kind: [mask / 4.0] * 2 for kind, mask in masks.items()}
    weights = torch.rand(4, 49).softmax(dim=1), torch.rand(4, 7).softmax(dim=1)
    clip = torch.randint(255, (1, 28, 28, 28)).to(torch.uint8)
    for figure in (
        drawings.model3(),
        drawings.folds(),
        drawings.ways(),
        drawings.curves_in_panels({way: [[0.7, 0.1]] * 3 for way in ("all zero", "only W_O zero", "copied", "fresh")}),
        drawings.masks_and_attention(masks, learned),
        drawings.heads_on_a_clip(clip, *weights, (3, 16), (7, 7, 7), "spleen: predicted spleen, 100%"),
    ):
        assert_readable(figure)


@pytest.mark.parametrize("kind", [ByLinear, ByParameters])
def test_an_embedding_without_a_convolution_is_carried_over(kind):
    sizes, clips = {"dim": 12, "heads": 2, "mlp_dim": 20}, torch.rand(2, 2, 6, 4, 10)
    clip_shape, tubelet = (2, 6, 4, 10), (3, 2, 5)
    model3 = finished.Model3(clip_shape, tubelet, 3, **sizes)
    model3.embedding = kind(clip_shape, 12, tubelet)
    model2 = finished_ch06.Model2(clip_shape, tubelet, 3, **sizes)
    model2.embedding = kind(clip_shape, 12, tubelet)
    model4 = finished_ch08.Model4(clip_shape, tubelet, 3, depth=1, space_heads=1, **sizes)
    model4.embedding = kind(clip_shape, 12, tubelet)
    packages = (
        ch06.model2_in_the_package(model2, clip_shape),
        ch07.packaged(model3, clips),
        ch08.model4_in_the_package(
            model4, classes=3, space_heads=1, clip_shape=clip_shape, tubelet=tubelet, depth=1, **sizes
        ),
    )
    for mine, package in zip((model2, model3, model4), packages):
        torch.testing.assert_close(mine.eval()(clips), package(clips), atol=1e-5, rtol=1e-4)
