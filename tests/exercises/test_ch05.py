"""The checks of chapter 05's exercises, the copying of weights behind them, and the chapter's drawings."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn

from tests.exercises.cases import run_cases
from vivit_edu import MultiHeadAttention, TubeletEmbedding, walking_bars
from vivit_edu.course.checks import CheckFailed, ch05
from vivit_edu.course.ready import ch05 as finished

# ---- 05.1 prepend the cls token


def cls_by_expand(tokens, cls):
    return torch.cat((cls.expand(len(tokens), -1, -1), tokens), dim=1)


def cls_by_repeat(tokens, cls):
    return torch.cat([repeat(cls, "1 1 d -> b 1 d", b=tokens.shape[0]), tokens], 1)


def cls_by_filling(tokens, cls):
    b, n, d = tokens.shape
    z = tokens.new_zeros(b, n + 1, d)
    z[:, 1:] = tokens
    z[:, 0] = cls[0, 0]
    return z


def cls_by_filling_zeros(tokens, cls):
    b, n, d = tokens.shape
    z = torch.zeros(b, n + 1, d)
    z[:, 0], z[:, 1:] = cls[0], tokens
    return z


def cls_clip_by_clip(tokens, cls):
    return torch.stack([torch.cat((cls[0], clip)) for clip in tokens])


def cls_overwrites(tokens, cls):
    z = tokens.clone()
    z[:, 0] = cls[0]
    return z


def cls_in_place(tokens, cls):
    tokens[:, 0] = cls[0]
    return tokens


def cls_in_the_first_clip(tokens, cls):
    copies = torch.zeros(len(tokens), 1, tokens.shape[-1])
    copies[0] = cls
    return torch.cat((copies, tokens), 1)


def cls_without_grad(tokens, cls):
    with torch.no_grad():
        return torch.cat((cls.expand(len(tokens), -1, -1), tokens), dim=1)


test_prepend_cls = run_cases(
    ch05.check_prepend_cls,
    right=[cls_by_expand, cls_by_repeat, cls_by_filling, cls_clip_by_clip],
    wrong={
        "last": (lambda z, cls: torch.cat((z, cls.expand(len(z), -1, -1)), 1), "comes last"),
        "overwritten": (cls_overwrites, "expected \\[3, 5, 5\\].*overwritten"),
        "overwritten in place": (cls_in_place, "changes the tokens"),
        "added": (lambda z, cls: z + cls, "added to every token"),
        "not expanded": (lambda z, cls: torch.cat((cls, z), 1), "must match.*expand"),
        "without dim": (lambda z, cls: torch.cat((cls.expand(len(z), -1, -1), z)), "must match.*dim=1"),
        "torch.zeros": (cls_by_filling_zeros, r"make new tensors like those given \(torch.zeros_like"),
        "along features": (lambda z, cls: torch.cat((cls.expand(len(z), z.shape[1], -1), z), 2), "axis of features"),
        "first clip only": (cls_in_the_first_clip, "only the first clip"),
        "the notebook's batch": (lambda z, cls: torch.cat((cls.expand(2, -1, -1), z), 1), "must match"),
        "zeros": (lambda z, cls: torch.cat((torch.zeros(len(z), 1, z.shape[2]), z), 1), "all zeros"),
        "detached": (lambda z, cls: torch.cat((cls.data.expand(len(z), -1, -1), z), 1), "no gradient reaches cls"),
        "no_grad": (cls_without_grad, "no gradient reaches cls"),
        "tokens detached": (lambda z, cls: cls_by_expand(z.detach(), cls), "no gradient reaches z"),
        "float32": (lambda z, cls: cls_by_expand(z, cls).float(), "float32"),
        "nothing returned": (lambda z, cls: None, "return"),
    },
)

# ---- 05.2 the encoder block


class OneLine(nn.Module):
    def __init__(self, dim, heads, mlp_dim):
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention = MultiHeadAttention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, z):
        y = self.attention(self.norm_attention(z)) + z
        return self.mlp(self.norm_mlp(y)) + y


class StepByStep(OneLine):
    def forward(self, z):
        residual = z
        z = self.norm_attention(z)
        z = self.attention(z)
        z = residual + z
        residual = z
        z = self.norm_mlp(z)
        for layer in self.mlp:
            z = layer(z)
        return torch.add(z, residual)


class TwoNorms(OneLine):
    """LayerNorms by an OrderedDict, torch's attention, an MLP with parts of other names."""

    def __init__(self, dim, heads, mlp_dim):
        super().__init__(dim, heads, mlp_dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = Widen(dim, mlp_dim)

    def forward(self, z):
        n = self.norm_attention(z)
        y = z + self.attention(n, n, n)[0]
        return y + self.mlp(self.norm_mlp(y))


class Widen(nn.Module):
    def __init__(self, dim, mlp_dim):
        super().__init__()
        self.first, self.second = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)

    def forward(self, x):
        return self.second(F.gelu(self.first(x)))


class SecondFirst(OneLine):
    """An MLP whose second layer is made first, and an attention whose `out` is made before `qkv`."""

    def __init__(self, dim, heads, mlp_dim):
        super().__init__(dim, heads, mlp_dim)
        self.attention, self.mlp = OutFirst(dim, heads), NarrowFirst(dim, mlp_dim)


class NarrowFirst(nn.Module):
    def __init__(self, dim, mlp_dim):
        super().__init__()
        self.second, self.first = nn.Linear(mlp_dim, dim), nn.Linear(dim, mlp_dim)

    def forward(self, x):
        return self.second(F.gelu(self.first(x)))


class OutFirst(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.out, self.qkv = heads, nn.Linear(dim, dim), nn.Linear(dim, 3 * dim)

    def forward(self, z):
        q, k, v = rearrange(self.qkv(z), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)"))


class ThreeMaps(OneLine):
    """An attention with a linear map each for queries, keys and values."""

    def __init__(self, dim, heads, mlp_dim):
        super().__init__(dim, heads, mlp_dim)
        self.attention = SeparateMaps(dim, heads)


class SeparateMaps(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, z):
        q, k, v = (rearrange(f(z), "b n (heads d) -> b heads n d", heads=self.heads) for f in (self.q, self.k, self.v))
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)"))


def forward_of(function, base=OneLine):
    """A class like OneLine with another forward, as a student would write it into the cell."""

    class EncoderBlock(base):
        forward = function

    return EncoderBlock


def made_with(change, base=OneLine):
    """A class like OneLine whose parts `change` has changed: change(self, dim, heads, mlp_dim)."""

    class EncoderBlock(base):
        def __init__(self, dim, heads, mlp_dim):
            super().__init__(dim, heads, mlp_dim)
            change(self, dim, heads, mlp_dim)

    return EncoderBlock


def post_norm(self, z):
    y = self.norm_attention(z + self.attention(z))
    return self.norm_mlp(y + self.mlp(y))


def norm_after_each(self, z):
    y = self.norm_attention(self.attention(z)) + z
    return self.norm_mlp(self.mlp(y)) + y


def norm_after_attention(self, z):
    y = self.norm_attention(self.attention(z)) + z
    return self.mlp(self.norm_mlp(y)) + y


def overwritten_z(self, z):
    z = self.norm_attention(z)
    z = z + self.attention(z)
    z = self.norm_mlp(z)
    return z + self.mlp(z)


def residual_from_z(self, z):
    y = self.attention(self.norm_attention(z)) + z
    return self.mlp(self.norm_mlp(y)) + z


def y_forgotten(self, z):
    y = self.attention(self.norm_attention(z)) + z
    return self.mlp(self.norm_mlp(z)) + y


def mlp_first(self, z):
    y = self.mlp(self.norm_mlp(z)) + z
    return self.attention(self.norm_attention(y)) + y


def y_in_place(self, z):
    y = self.attention(self.norm_attention(z)) + z
    y += self.mlp(self.norm_mlp(y))
    return y


def z_in_place(self, z):
    z += self.attention(self.norm_attention(z))
    z += self.mlp(self.norm_mlp(z))
    return z


def over_the_batch(self, z):
    z = z.transpose(0, 1)
    y = z + self.attention(self.norm_attention(z))
    return (y + self.mlp(self.norm_mlp(y))).transpose(0, 1)


def with_dropout(self, z):
    y = F.dropout(self.attention(self.norm_attention(z)), 0.1, self.training) + z
    return self.mlp(self.norm_mlp(y)) + y


def attention_without_grad(self, z):
    with torch.no_grad():
        y = self.attention(self.norm_attention(z))
    y = y + z
    return self.mlp(self.norm_mlp(y)) + y


class NoSuper(nn.Module):
    def __init__(self, dim, heads, mlp_dim):
        self.norm_attention = nn.LayerNorm(dim)


class Open(nn.Module):
    def __init__(self, dim, heads, mlp_dim):
        super().__init__()
        raise NotImplementedError()


def block_of_one(self, z):
    return OneLine.forward(self, z.view(2, 6, 12))


def swap_norms(self, z):
    y = self.attention(self.norm_mlp(z)) + z
    return self.mlp(self.norm_attention(y)) + y


def tanh_mlp(self, dim, heads, mlp_dim):
    self.mlp[1] = nn.GELU(approximate="tanh")


def relu_mlp(self, dim, heads, mlp_dim):
    self.mlp[1] = nn.ReLU()


def mlp_twice(self, dim, heads, mlp_dim):
    self.mlp.append(nn.GELU())


def mlp_of_four(self, dim, heads, mlp_dim):
    self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


def four_heads(self, dim, heads, mlp_dim):
    self.attention = MultiHeadAttention(dim, 4)


def one_norm(self, dim, heads, mlp_dim):
    self.norm_mlp = self.norm_attention


def batch_norm(self, dim, heads, mlp_dim):
    self.norm_mlp = nn.BatchNorm1d(dim)


def other_names(self, dim, heads, mlp_dim):
    self.norm1 = self.norm_attention
    del self.norm_attention


def frozen(self, dim, heads, mlp_dim):
    self.norm_mlp.requires_grad_(False)


def batch_second(self, dim, heads, mlp_dim):
    self.attention = nn.MultiheadAttention(dim, heads)


def eps_of_torch(self, dim, heads, mlp_dim):
    self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)


def branch_detached(self, z):
    y = self.attention(self.norm_attention(z.detach())) + z
    return self.mlp(self.norm_mlp(y)) + y


def into_eval_mode(self, z):
    self.eval()
    return OneLine.forward(self, z)


test_block = run_cases(
    ch05.check_block,
    right=[OneLine, StepByStep, TwoNorms, ThreeMaps, SecondFirst],
    wrong={
        "eps of torch": (made_with(eps_of_torch), "eps=1e-05"),
        "input of a branch detached": (forward_of(branch_detached), "the gradient of the input is not"),
        "into eval mode": (forward_of(into_eval_mode), "leaves the module in it"),
        "open": (Open, "still to be written"),
        "no super": (NoSuper, "before Module.__init__"),
        "post-norm": (forward_of(post_norm), "post-norm"),
        "norm after the branch": (forward_of(norm_after_each), "after the attention and after the MLP"),
        "norm after the attention": (forward_of(norm_after_attention), "LayerNorm comes after the attention: "),
        "z overwritten": (forward_of(overwritten_z), "carries the normalised tokens"),
        "adds z": (forward_of(residual_from_z), "adds z, so the attention's result is lost"),
        "MLP of z": (forward_of(y_forgotten), "both start from z"),
        "MLP first": (forward_of(mlp_first), "MLP comes before"),
        "no residual": (forward_of(lambda s, z: s.mlp(s.norm_mlp(s.attention(s.norm_attention(z))))), "both residuals"),
        "no MLP residual": (
            forward_of(lambda s, z: s.mlp(s.norm_mlp(z + s.attention(s.norm_attention(z))))),
            "residual around the MLP",
        ),
        "attention only": (forward_of(lambda s, z: z + s.attention(s.norm_attention(z))), "MLP step is missing"),
        "norms exchanged": (forward_of(swap_norms), "LayerNorms are swapped"),
        "y in place": (forward_of(y_in_place), "training would stop with an error"),
        "z in place": (forward_of(z_in_place), "changes the z"),
        "over the batch": (forward_of(over_the_batch), "runs over the batch"),
        "torch's attention, batch second": (made_with(batch_second, TwoNorms), "runs over the batch"),
        "dropout": (forward_of(with_dropout), "train mode"),
        "without gradients": (forward_of(attention_without_grad), "no gradient reaches"),
        "the whole forward without gradients": (forward_of(torch.no_grad()(OneLine.forward)), "no gradient reaches"),
        "the notebook's batch": (forward_of(block_of_one), "invalid for input"),
        "tanh": (made_with(tanh_mlp), "tanh form"),
        "ReLU": (made_with(relu_mlp), "ReLU"),
        "GELU at the end": (made_with(mlp_twice), "second GELU"),
        "4·dim": (made_with(mlp_of_four), "12 to 20"),
        "always four heads": (made_with(four_heads), "a different number of them"),
        "one norm": (made_with(one_norm), "are one module"),
        "BatchNorm": (made_with(batch_norm), "expected nn.LayerNorm"),
        "other names": (made_with(other_names), "no part `norm_attention`"),
        "frozen": (made_with(frozen), "requires_grad=False"),
        "nothing returned": (forward_of(lambda s, z: None), "return"),
        "a function": (lambda dim, heads, mlp_dim: lambda z: z, "inherits from nn.Module"),
    },
)

# ---- 05.3 the head


class HeadWithIf(nn.Module):
    def __init__(self, dim, classes, pool):
        super().__init__()
        self.norm, self.linear, self.pool = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, classes), pool

    def forward(self, z):
        z = self.norm(z)
        if self.pool == "cls":
            return self.linear(z[:, 0])
        return self.linear(z.mean(dim=1))


class HeadLinearFirst(HeadWithIf):
    """The linear map can be applied to every token first: the mean of logits is the logit of the mean."""

    def forward(self, z):
        logits = self.linear(self.norm(z))
        return logits[:, 0, :] if self.pool == "cls" else logits.sum(dim=1) / z.shape[1]


class HeadPicksFirst(HeadWithIf):
    def forward(self, z):
        if self.pool == "cls":
            return self.linear(self.norm(z[:, 0]))
        return self.linear(self.norm(z).mean(1))


def head(function, base=HeadWithIf):
    class ClassifierHead(base):
        forward = function

    return ClassifierHead


def batch_norm_head(dim, classes, pool):
    made = HeadWithIf(dim, classes, pool)
    made.norm = nn.BatchNorm1d(dim)
    return made


def eleven_classes(dim, classes, pool):
    made = HeadWithIf(dim, classes, pool)
    made.linear = nn.Linear(dim, 11)
    return made


def head_with_eps_of_torch(dim, classes, pool):
    made = HeadWithIf(dim, classes, pool)
    made.norm = nn.LayerNorm(dim)
    return made


def head_without_bias(dim, classes, pool):
    made = HeadWithIf(dim, classes, pool)
    made.linear = nn.Linear(dim, classes, bias=False)
    return made


test_head = run_cases(
    ch05.check_classifier,
    right=[HeadWithIf, HeadLinearFirst, HeadPicksFirst],
    wrong={
        "eps of torch": (head_with_eps_of_torch, "eps=1e-05"),
        "no bias": (head_without_bias, "has no bias"),
        "always cls": (head(lambda s, z: s.linear(s.norm(z)[:, 0])), 'pool="mean", but the head reads the first token'),
        "always mean": (head(lambda s, z: s.linear(s.norm(z).mean(1))), 'pool="cls", but the head reads the mean'),
        "last token": (
            head(lambda s, z: s.linear(s.norm(z)[:, -1] if s.pool == "cls" else s.norm(z).mean(1))),
            "last token",
        ),
        "no norm": (head(lambda s, z: s.linear(z[:, 0] if s.pool == "cls" else z.mean(1))), "LayerNorm is missing"),
        "mean, then norm": (
            head(lambda s, z: s.linear(s.norm(z[:, 0] if s.pool == "cls" else z.mean(1)))),
            "normalised afterwards",
        ),
        "softmax": (head(lambda s, z: HeadWithIf.forward(s, z).softmax(-1)), "softmax follows"),
        "log_softmax": (head(lambda s, z: F.log_softmax(HeadWithIf.forward(s, z), dim=1)), "log_softmax follows"),
        "mean of features": (
            head(lambda s, z: s.linear(s.norm(z)[:, 0] if s.pool == "cls" else s.norm(z).mean(2))),
            "features are the last axis",
        ),
        "every token": (head(lambda s, z: s.linear(s.norm(z))), "logits for every token"),
        "sum": (
            head(lambda s, z: s.linear(s.norm(z)[:, 0] if s.pool == "cls" else s.norm(z).sum(1))),
            "added up",
        ),
        "max": (
            head(lambda s, z: s.linear(s.norm(z)[:, 0] if s.pool == "cls" else s.norm(z).max(1).values)),
            "largest value",
        ),
        "mean without the first": (
            head(lambda s, z: s.linear(s.norm(z)[:, 0] if s.pool == "cls" else s.norm(z)[:, 1:].mean(1))),
            "leaves out the first token",
        ),
        "axis of the batch": (
            head(lambda s, z: s.linear(s.norm(z)[0] if s.pool == "cls" else s.norm(z).mean(0))),
            "(has|have) shape",
        ),
        "kept axis": (
            head(lambda s, z: s.linear(s.norm(z)[:, :1] if s.pool == "cls" else s.norm(z).mean(1, keepdim=True))),
            "axis is still there",
        ),
        "no linear": (head(lambda s, z: s.norm(z)[:, 0]), "linear map is missing"),
        "BatchNorm": (batch_norm_head, "expected nn.LayerNorm"),
        "eleven classes": (eleven_classes, "classes=7"),
        "detached": (head(lambda s, z: HeadWithIf.forward(s, z.detach())), "no gradient reaches"),
        "nothing returned": (head(lambda s, z: None), "return"),
    },
)

# ---- 05.4 Model 1

Head = HeadWithIf


class Whole(nn.Module):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, pool="mean"):
        super().__init__()
        self.embedding = TubeletEmbedding(clip_shape, dim, tubelet)
        nt, nh, nw = self.embedding.grid
        self.cls = nn.Parameter(torch.zeros(1, 1, dim)) if pool == "cls" else None
        self.positions = nn.Parameter(0.5 * torch.randn(1, nt * nh * nw + (pool == "cls"), dim))
        self.blocks = nn.ModuleList(OneLine(dim, heads, mlp_dim) for _ in range(depth))
        self.head = Head(dim, classes, pool)

    def forward(self, clips):
        z = rearrange(self.embedding(clips), "b nt s d -> b (nt s) d")
        if self.cls is not None:
            z = cls_by_expand(z, self.cls)
        z = z + self.positions
        for block in self.blocks:
            z = block(z)
        return self.head(z)


class WithFlatten(Whole):
    def forward(self, clips):
        z = self.embedding(clips).flatten(1, 2)
        z = z if self.cls is None else torch.cat([self.cls.repeat(z.shape[0], 1, 1), z], dim=1)
        return self.head(nn.Sequential(*self.blocks)(self.positions + z))


class PositionsPiecewise(Whole):
    """The cls token's position and those of the tokens added separately, blocks by index, positions by normal_."""

    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.positions = nn.Parameter(torch.empty_like(self.positions).normal_(std=0.5))

    def forward(self, clips):
        z = self.embedding(clips)
        z = z.reshape(len(clips), -1, z.shape[-1])
        if self.cls is None:
            z = z + self.positions
        else:
            first = (self.cls + self.positions[:, :1]).expand(len(z), 1, -1)
            z = torch.cat((first, z + self.positions[:, 1:]), dim=1)
        for k in range(len(self.blocks)):
            z = self.blocks[k](z)
        return self.head(z)


class ByLinear(nn.Module):
    """An embedding that passes 03.3: a cut of its own and a linear map."""

    def __init__(self, clip_shape, dim, tubelet):
        super().__init__()
        self.tubelet, self.grid = tubelet, tuple(n // p for n, p in zip(clip_shape[1:], tubelet))
        self.linear = nn.Linear(clip_shape[0] * math.prod(tubelet), dim)

    def boxes(self, clips):
        pt, ph, pw = self.tubelet
        return rearrange(clips, "b c (nt pt) (nh ph) (nw pw) -> b nt (nh nw) (c pt ph pw)", pt=pt, ph=ph, pw=pw)

    def forward(self, clips):
        return self.linear(self.boxes(clips))


class ByParameters(ByLinear):
    """Another one, with E as it is multiplied from the right."""

    def __init__(self, clip_shape, dim, tubelet):
        super().__init__(clip_shape, dim, tubelet)
        del self.linear
        self.E = nn.Parameter(0.02 * torch.randn(clip_shape[0] * math.prod(tubelet), dim))
        self.b = nn.Parameter(torch.zeros(dim))

    def forward(self, clips):
        return self.boxes(clips) @ self.E + self.b


def with_embedding(kind):
    class Model1(Whole):
        def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, pool="mean"):
            super().__init__(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim, pool)
            self.embedding = kind(clip_shape, dim, tubelet)

    Model1.__name__ = kind.__name__
    return Model1


def model(function, base=Whole):
    class Model1(base):
        forward = function

    return Model1


def model_with(change):
    class Model1(Whole):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            change(self)

    return Model1


def start(self, clips, order="b nt s d -> b (nt s) d"):
    z = rearrange(self.embedding(clips), order)
    return z if self.cls is None else cls_by_expand(z, self.cls)


def through(self, z):
    for block in self.blocks:
        z = block(z)
    return self.head(z)


def no_positions(self, clips):
    return through(self, start(self, clips))


def time_first(self, clips):
    return through(self, start(self, clips, "b nt s d -> b (s nt) d") + self.positions)


def cls_last(self, clips):
    z = rearrange(self.embedding(clips), "b nt s d -> b (nt s) d")
    z = z if self.cls is None else torch.cat((z, self.cls.expand(len(z), -1, -1)), 1)
    return through(self, z + self.positions)


def cls_without_position(self, clips):
    z = rearrange(self.embedding(clips), "b nt s d -> b (nt s) d")
    if self.cls is None:
        return through(self, z + self.positions)
    return through(self, cls_by_expand(z + self.positions[:, 1:], self.cls))


def first_block_only(self, clips):
    return self.head(self.blocks[0](start(self, clips) + self.positions))


def z_not_handed_on(self, clips):
    z = start(self, clips) + self.positions
    for block in self.blocks:
        y = block(z)
    return self.head(y)


def no_blocks(self, clips):
    return self.head(start(self, clips) + self.positions)


def positions_in_every_block(self, clips):
    z = start(self, clips)
    for block in self.blocks:
        z = block(z + self.positions)
    return self.head(z)


def positions_after_the_blocks(self, clips):
    z = start(self, clips)
    for block in self.blocks:
        z = block(z)
    return self.head(z + self.positions)


def in_place(self, clips):
    z = start(self, clips)
    z += self.positions
    clips *= 0
    return through(self, z)


def without_grad(self, clips):
    with torch.no_grad():
        z = start(self, clips) + self.positions
    return through(self, z)


def loses_positions(self, clips):
    return through(self, start(self, clips) + self.positions.detach())


def softmax_at_the_end(self, clips):
    return Whole.forward(self, clips).softmax(dim=-1)


def dropout_left_in(self, clips):
    return through(self, F.dropout(start(self, clips) + self.positions, 0.1, training=self.training))


def hard_coded(self, clips):
    z = start(self, clips) + self.positions
    return through(self, z.view(-1, 17, 12))


def list_of_blocks(self):
    blocks = list(self.blocks)
    del self.blocks
    self.blocks = blocks


def repeated_block(self):
    self.blocks = nn.ModuleList([self.blocks[0]] * len(self.blocks))


def one_block_less(self):
    self.blocks = self.blocks[1:]


def plain_positions(self):
    positions = self.positions.data
    del self.positions
    self.positions = positions


def positions_of_tokens_only(self):
    if self.cls is not None:
        self.positions = nn.Parameter(self.positions.data[:, 1:])


def positions_of_the_notebook(self):
    self.positions = nn.Parameter(torch.randn(1, 17, self.positions.shape[-1]))


def zero_positions(self):
    nn.init.zeros_(self.positions)


def cls_for_the_mean_too(self):
    if self.cls is None:
        self.cls = nn.Parameter(torch.zeros(1, 1, self.positions.shape[-1]))


def no_cls(self):
    del self.cls


def cls_of_two_axes(self):
    if self.cls is not None:
        self.cls = nn.Parameter(torch.zeros(1, self.positions.shape[-1]))


def scaled_positions(draw):
    return model_with(lambda self: setattr(self, "positions", nn.Parameter(draw(self.positions.shape))))


def random_cls(self):
    if self.cls is not None:
        self.cls = nn.Parameter(torch.randn_like(self.cls))


class DefaultIsCls(Whole):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, pool="cls"):
        super().__init__(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim, pool)


class DefaultIsDeep(Whole):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=4, heads=4, mlp_dim=64, pool="mean"):
        super().__init__(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim, pool)


class TwiceTheWidth(Whole):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, pool="mean"):
        super().__init__(clip_shape, tubelet, classes, dim, depth, heads, 2 * dim, pool)


class FourHeads(Whole):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, pool="mean"):
        super().__init__(clip_shape, tubelet, classes, dim, depth, 4, mlp_dim, pool)


class NAsTensor(Whole):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, pool="mean"):
        super().__init__(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim, pool)
        N = torch.prod(torch.tensor(self.embedding.grid))
        self.positions = nn.Parameter(0.5 * torch.randn(1, N + (pool == "cls"), dim))


class NByItem(Whole):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, pool="mean"):
        super().__init__(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim, pool)
        N = torch.tensor(self.embedding.grid).prod().item()
        self.positions = nn.Parameter(0.5 * torch.randn(1, N + (pool == "cls"), dim))


class WithNorm(Whole):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, pool="mean"):
        super().__init__(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim, pool)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, clips):
        z = start(self, clips) + self.positions
        for block in self.blocks:
            z = block(z)
        return self.head(self.norm(z))


def norm_twice(self, clips):
    z = start(self, clips) + self.positions
    for block in self.blocks:
        z = block(z)
    return self.head(self.head.norm(z))


def residual_around(self, clips):
    z = start(self, clips) + self.positions
    for block in self.blocks:
        z = z + block(z)
    return self.head(z)


def no_sequence(self, clips):
    z = self.embedding(clips)
    z = z if self.cls is None else finished.prepend_cls(z, self.cls)
    return through(self, z + self.positions)


def no_sequence_by_cat(self, clips):
    return through(self, (start(self, clips) if self.cls is not None else self.embedding(clips)) + self.positions)


def head_of_32(self):
    self.head = Head(32, self.head.linear.out_features, self.head.pool)


def head_of_two(self):
    self.head = Head(self.positions.shape[-1], 2, self.head.pool)


def embedding_of_32(self):
    self.embedding = TubeletEmbedding((2, 9, 8, 25), 32, (3, 4, 5))


def mean_head(self):
    self.head.pool = "mean"


def cls_head(self):
    self.head.pool = "cls"


def cls_only_for_cls(self):
    if self.cls is None:
        del self.cls


test_model1 = run_cases(
    ch05.check_model1,
    right=[Whole, WithFlatten, PositionsPiecewise, with_embedding(ByLinear), with_embedding(ByParameters)],
    wrong={
        "N as a tensor": (NAsTensor, "compute N in plain Python, math.prod"),
        "N by item": (NByItem, "compute N in plain Python, math.prod"),
        "head of 32": (model_with(head_of_32), "with dim=12, the head has dim 32"),
        "head with two classes": (model_with(head_of_two), "with classes=7, the head has 2"),
        "embedding of 32": (model_with(embedding_of_32), "with dim=12, the embedding has dim 32"),
        "head always mean": (model_with(mean_head), 'pool="cls", but the head reads the mean'),
        "head always cls": (model_with(cls_head), 'pool="mean", but the head reads the first'),
        "norm twice": (model(norm_twice), "LayerNorm comes twice"),
        "a LayerNorm of its own": (WithNorm, "LayerNorm comes twice"),
        "residual around the block": (model(residual_around), "the residuals are inside the block"),
        "no sequence": (model(no_sequence), "into one sequence first"),
        "no sequence, no cls": (model(no_sequence_by_cat), "into one sequence first"),
        "no cls attribute for mean": (model_with(cls_only_for_cls), "set self.cls = None if pool is not"),
        "positions of 1": (scaled_positions(torch.randn), "standard deviation"),
        "positions of 0.02": (scaled_positions(lambda shape: 0.02 * torch.randn(shape)), "standard deviation"),
        "positions by rand": (scaled_positions(lambda shape: 0.5 * torch.rand(shape)), "standard deviation"),
        "random cls": (model_with(random_cls), "doesn't start at zero"),
        "cls by default": (DefaultIsCls, "leave the defaults"),
        "four blocks by default": (DefaultIsDeep, "leave the defaults"),
        "MLP of 2 · dim": (TwiceTheWidth, "with mlp_dim=20"),
        "four heads": (FourHeads, "with heads=3 the blocks have 4"),
        "no positions": (model(no_positions), "positions are not used"),
        "time first": (model(time_first), "another order"),
        "cls last": (model(cls_last), "cls token comes last"),
        "cls without a position": (model(cls_without_position), "got no position"),
        "first block only": (model(first_block_only), "only the first block"),
        "z not handed on": (model(z_not_handed_on), "only the last block's result"),
        "no blocks": (model(no_blocks), "no block is used"),
        "positions in every block": (model(positions_in_every_block), "before every block"),
        "positions after the blocks": (model(positions_after_the_blocks), "after the blocks"),
        "clips changed": (model(in_place), "changes the clips"),
        "without gradients": (model(without_grad), "no gradient reaches"),
        "positions detached": (model(loses_positions), "no gradient reaches module.positions"),
        "softmax": (model(softmax_at_the_end), "softmax follows"),
        "dropout": (model(dropout_left_in), "train mode"),
        "the notebook's sizes": (model(hard_coded), "invalid for input"),
        "a list": (model_with(list_of_blocks), "plain list"),
        "one block": (model_with(repeated_block), "one and the same object"),
        "depth - 1": (model_with(one_block_less), "with depth=3 there are 2 blocks"),
        "no Parameter": (model_with(plain_positions), "not an nn.Parameter"),
        "N positions with a cls token": (model_with(positions_of_tokens_only), "one for the cls token"),
        "17 positions": (model_with(positions_of_the_notebook), "has shape \\[1, 17, 12\\]"),
        "zeros": (model_with(zero_positions), "standard deviation of 0"),
        "cls for mean": (model_with(cls_for_the_mean_too), "self.cls = None"),
        "no cls": (model_with(no_cls), "no `cls`"),
        "cls of two axes": (model_with(cls_of_two_axes), "`cls` has shape \\[1, 12\\]"),
    },
)

# ---- 05.5 a test that catches faults


def agree_by_copies(first, second, clips):
    first, second = copy.deepcopy(first).eval(), copy.deepcopy(second).eval()
    with torch.no_grad():
        for parameter in first.parameters():
            nn.init.normal_(parameter, std=0.3)
        second.load_state_dict(first.state_dict())
        return (first(clips) - second(clips)).abs().max() < 1e-3


def agree_by_zip(first, second, clips):
    a, b = copy.deepcopy(first), copy.deepcopy(second)
    a.eval()
    b.eval()
    for p, q in zip(a.parameters(), b.parameters()):
        p.data = torch.randn_like(p) * 0.5
        q.data = p.data.clone()
    found, expected = a(clips), b(clips)
    return bool(torch.isclose(found, expected, rtol=1e-3, atol=1e-4).all())


@torch.no_grad()
def agree_by_restoring(first, second, clips):
    kept = [copy.deepcopy(m.state_dict()) for m in (first, second)]
    modes = [m.training for m in (first, second)]
    large = {name: torch.randn_like(value) for name, value in first.state_dict().items()}
    logits = []
    for m, weights, mode in zip((first, second), kept, modes):
        m.load_state_dict(large)
        logits.append(m.eval()(clips))
        m.load_state_dict(weights)
        m.train(mode)
    return torch.allclose(*logits, rtol=1e-3, atol=1e-3)


def agree(prepare=lambda a, b: None, *, compare=None, copied=True, large=0.3, quiet=True, clips_seen=slice(None)):
    """The right test with something left out."""

    def agree(first, second, clips):
        a, b = copy.deepcopy(first), copy.deepcopy(second)
        if quiet:
            a.eval(), b.eval()
        with torch.no_grad():
            for parameter in a.parameters() if large else ():
                parameter.normal_(std=large)
            if copied:
                b.load_state_dict(a.state_dict())
            prepare(a, b)
            found, expected = a(clips[clips_seen]), b(clips[clips_seen])
        if compare is not None:
            return compare(found, expected)
        return torch.allclose(found, expected, rtol=1e-4, atol=1e-4)

    return agree


def agree_not_on_copies(first, second, clips):
    first.eval()
    second.eval()
    second.load_state_dict(first.state_dict())
    return torch.allclose(first(clips), second(clips), atol=1e-4)


def agree_in_the_originals(first, second, clips):
    with torch.no_grad():
        for a, b in zip(first.parameters(), second.parameters()):
            a.normal_(std=0.5)
            b.copy_(a)
    return torch.allclose(copy.deepcopy(first).eval()(clips), copy.deepcopy(second).eval()(clips), atol=1e-4)


def agree_leaves_eval(first, second, clips):
    result = agree_by_copies(first, second, clips)
    first.eval()
    return result


def agree_all_ones(a, b):
    for parameter in [*a.parameters(), *b.parameters()]:
        parameter.fill_(1)


def agree_in_the_mean(first, second, clips):
    a, b = copy.deepcopy(first).eval(), copy.deepcopy(second).eval()
    with torch.no_grad():
        for parameter in a.parameters():
            parameter.copy_(torch.randn_like(parameter))
        b.load_state_dict(a.state_dict())
        return bool((a(clips).mean() - b(clips).mean()).abs() < 1e-2)


test_agree = run_cases(
    ch05.check_agree,
    right=[agree_by_copies, agree_by_zip, agree_by_restoring],
    wrong={
        "means of logits": (agree_in_the_mean, "belong to other classes|one with this fault"),
        "always True": (lambda a, b, clips: True, "one with this fault"),
        "always False": (lambda a, b, clips: False, "says False about two fresh models"),
        "the same names": (
            lambda a, b, clips: a.state_dict().keys() == b.state_dict().keys(),
            "says True about a right model",
        ),
        "shapes": (lambda a, b, clips: a(clips).shape == b(clips).shape, "says True about a right model"),
        "weights not copied": (agree(copied=False), "Their weights differ"),
        "train mode": (agree(quiet=False), "Compare in eval mode"),
        "exactly equal": (agree(compare=torch.equal), "last digits"),
        "fresh weights": (agree(large=None), "cls token is zeros.*large random"),
        "ones": (agree(agree_all_ones), "says True about a right model"),
        "predicted classes": (
            agree(compare=lambda x, y: torch.equal(x.argmax(1), y.argmax(1))),
            "says True about a right model",
        ),
        "one clip": (
            agree(clips_seen=slice(0, 1)),
            "clips of a batch attend to each other.*A single clip has no other",
        ),
        "any": (
            agree(compare=lambda x, y: ((x - y).abs() < 1e-4).any()),
            "only the first clip of a batch.*only if all logits of all clips do",
        ),
        "a tolerance of 1": (
            agree(compare=lambda x, y: torch.allclose(x, y, atol=1), large=1),
            "tolerance of about 1e-4",
        ),
        "small weights": (agree(large=0.02), "With small weights it hardly shows|large random numbers"),
        "a loose tolerance": (agree(compare=lambda x, y: torch.allclose(x, y, atol=5)), "says True about a right"),
        "mean logits": (agree(compare=lambda x, y: abs(x.mean() - y.mean()) < 0.5), "says True about a right"),
        "weights overwritten": (agree_not_on_copies, "changes the (first|second)"),
        "into the originals": (agree_in_the_originals, r"changes the weights of `first`: work on a copy \(copy.deep"),
        "left in eval mode": (agree_leaves_eval, "left in another mode"),
        "logits returned": (agree(compare=lambda x, y: x - y), "True or False"),
        "nothing returned": (lambda a, b, clips: None, "True or False|return"),
    },
)

# ---- 05.6 the training loop


def learn_plain(model, batches):
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for clips, labels in batches:
        loss = F.cross_entropy(model(clips), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def learn_by_criterion(model, batches):
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    criterion = nn.CrossEntropyLoss()
    model.train()
    for x, y in batches:
        optimiser.zero_grad(set_to_none=False)
        logits = model(x)
        loss = criterion(logits, y)
        losses += [float(loss.detach())]
        loss.backward()
        optimiser.step()
    return losses


def learn_by_hand(model, batches):
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for clips, labels in batches:
        model.zero_grad()
        loss = -model(clips).log_softmax(-1)[torch.arange(len(labels)), labels].mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def loop(body, steps=slice(None)):
    """learn with another body of the loop: body(model, optimiser, losses, clips, labels)."""

    def learn(model, batches):
        optimiser, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
        for clips, labels in batches[steps]:
            body(model, optimiser, losses, clips, labels)
        return losses

    return learn


def no_zero_grad(model, optimiser, losses, clips, labels):
    loss = F.cross_entropy(model(clips), labels)
    loss.backward()
    optimiser.step()
    losses.append(loss.item())


def no_step(model, optimiser, losses, clips, labels):
    loss = F.cross_entropy(model(clips), labels)
    optimiser.zero_grad()
    loss.backward()
    losses.append(loss.item())


def no_backward(model, optimiser, losses, clips, labels):
    loss = F.cross_entropy(model(clips), labels)
    optimiser.zero_grad()
    optimiser.step()
    losses.append(loss.item())


def zero_after_backward(model, optimiser, losses, clips, labels):
    loss = F.cross_entropy(model(clips), labels)
    loss.backward()
    optimiser.zero_grad()
    optimiser.step()
    losses.append(loss.item())


def softmax_first(model, optimiser, losses, clips, labels):
    loss = F.cross_entropy(model(clips).softmax(1), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())


def step_first(model, optimiser, losses, clips, labels):
    loss = F.cross_entropy(model(clips), labels)
    optimiser.step()
    optimiser.zero_grad()
    loss.backward()
    losses.append(loss.item())


def keeps_tensors(model, optimiser, losses, clips, labels):
    loss = F.cross_entropy(model(clips), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss)


def nothing_kept(model, optimiser, losses, clips, labels):
    no_zero_grad(model, optimiser, [], clips, labels)


def without_grad_mode(model, optimiser, losses, clips, labels):
    with torch.no_grad():
        loss = F.cross_entropy(model(clips), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())


def labels_first(model, optimiser, losses, clips, labels):
    losses.append(F.cross_entropy(labels, model(clips)).item())


def summed_loss(model, optimiser, losses, clips, labels):
    loss = F.cross_entropy(model(clips), labels, reduction="sum")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())


def seeded_loop(model, optimiser, losses, clips, labels):
    torch.manual_seed(0)
    learn_plain(model, [(clips, labels)])


def two_steps(model, optimiser, losses, clips, labels):
    keeps_tensors(model, optimiser, losses, clips, labels)
    optimiser.step()
    losses[-1] = losses[-1].item()


def losses_as_text(model, optimiser, losses, clips, labels):
    keeps_tensors(model, optimiser, losses, clips, labels)
    losses[-1] = f"{losses[-1].item():.6f}"


def detached_losses(model, optimiser, losses, clips, labels):
    keeps_tensors(model, optimiser, losses, clips, labels)
    losses[-1] = losses[-1].detach()


def loss_after_the_step(model, optimiser, losses, clips, labels):
    keeps_tensors(model, optimiser, [], clips, labels)
    losses.append(F.cross_entropy(model(clips), labels).item())


def in_eval_mode(model, optimiser, losses, clips, labels):
    model.eval()
    keeps_tensors(model, optimiser, losses, clips, labels)
    losses[-1] = losses[-1].item()


test_learn = run_cases(
    ch05.check_learn,
    right=[learn_plain, learn_by_criterion, learn_by_hand],
    wrong={
        "detached losses": (loop(detached_losses), "expected Python numbers"),
        "loss after the step": (loop(loss_after_the_step), "after each step"),
        "eval mode": (loop(in_eval_mode), "in eval mode"),
        "no zero_grad": (loop(no_zero_grad), "gradients add up"),
        "no step": (loop(no_step), "does not learn"),
        "no backward": (loop(no_backward), "does not learn"),
        "zero_grad after backward": (loop(zero_after_backward), "gradients are emptied before step"),
        "softmax": (loop(softmax_first), "softmax comes before"),
        "step before backward": (loop(step_first), "call backward first"),
        "tensors": (loop(keeps_tensors), "loss.item\\(\\)"),
        "nothing kept": (loop(nothing_kept), "returned 0 numbers"),
        "no_grad": (loop(without_grad_mode), "does not require grad"),
        "arguments swapped": (loop(labels_first), "raised"),
        "summed": (loop(summed_loss), "added up over the clips"),
        "one batch": (loop(no_zero_grad, slice(0, 1)), "returned 1 number: .*after the loop"),
        "two steps": (loop(two_steps), "twice for each batch"),
        "texts": (loop(losses_as_text), "of type str, expected Python numbers"),
        "a seed": (loop(seeded_loop), "sets the global seed"),
        "returns the last loss": (lambda model, batches: learn_plain(model, batches)[-1], "a float"),
        "returns nothing": (lambda model, batches: learn_plain(model, batches) and None, "return"),
    },
)

# ---- copying weights


@pytest.mark.parametrize("kind", [OneLine, TwoNorms, ThreeMaps, SecondFirst])
def test_the_package_takes_over_the_weights_of_any_right_model(kind, capsys):
    class Model1(Whole):
        def __init__(self, *sizes, **more):
            super().__init__(*sizes, **more)
            dim, heads, mlp_dim = self.positions.shape[-1], 4, self.blocks[0].mlp[0].out_features
            self.blocks = nn.ModuleList(kind(dim, heads, mlp_dim) for _ in self.blocks)

    ch05.same_as_package(Model1)
    ch05.same_as_torch(lambda *sizes: kind(*sizes))
    assert "agree in all" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [ByLinear, ByParameters])
def test_the_package_takes_over_an_embedding_without_a_convolution(kind, capsys):
    ch05.same_as_package(with_embedding(kind))
    ch05.same_as_transformers(with_embedding(kind))
    assert "agree in all" in capsys.readouterr().out
    with pytest.raises(CheckFailed, match="the one of chapter 03"):
        ch05.in_the_package(with_embedding(kind)((1, 4, 8, 8), (1, 8, 2), 2))


def test_parity_refuses_a_wrong_model():
    with pytest.raises(CheckFailed, match="differ by up to"):
        ch05.same_as_package(model(time_first))
    with pytest.raises(CheckFailed, match="differ by up to"):
        ch05.same_as_torch(forward_of(post_norm))


@pytest.mark.parametrize("kind", [finished.Model1, Whole])
def test_transformers_agrees_where_it_is_installed(kind, capsys, monkeypatch):
    ch05.same_as_transformers(kind)
    assert "agree in all" in capsys.readouterr().out or not ch05.importlib.util.find_spec("transformers")
    monkeypatch.setattr(ch05.importlib.util, "find_spec", lambda name: None)
    ch05.same_as_transformers(kind)
    assert "not installed" in capsys.readouterr().out


# ---- drawings


def test_drawings():
    from tests.course.test_pictures import assert_readable
    from vivit_edu.course.schematics import block

    split = walking_bars(draws={"train": 1}).train
    clips, masks = split.clips[[0, 4]], split.masks[[0, 4]][:, :, 0, ::2]
    even = torch.full((2, 4, 4), 1 / 16)
    for figure in (
        block.model1(),
        block.walks(clips, ["left", "right"]),
        block.learning_curves({"with": [[0.7, 0.1]] * 3, "without": [[0.7, 0.7]] * 3}),
        block.attention_and_mask(clips / 255, masks, {"one": even, "other": even}, ["left", "right"]),
    ):
        assert_readable(figure)
