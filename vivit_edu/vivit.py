"""The four models of ViViT (Arnab et al. 2021, section 3.3), each on one screen.

    Model 1  SpaceTime              every token attends to every token            chapter 05
    Model 2  FactorisedEncoder      an encoder over space, then one over time     chapter 06
    Model 3  FactorisedSelfAttention  in each block first over space, then time   chapter 07
    Model 4  FactorisedDotProduct   half of the heads over space, half over time  chapter 08

B clips become nt (n_t) time indices of S = n_h·n_w tokens of width D each.
To add a model, write a subclass of `ViViT` with its record, and give it a name in models.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn

from .attention import FactorisedDotProductAttention, MultiHeadAttention, check_heads, over_space, over_time
from .embedding import REMAINDERS, TOKENIZERS, learned_positions, prepend_cls
from .errors import ConfigError
from .support.options import check_choice, check_depth, check_share, check_sizes, check_whole

ACTIVATIONS = {"gelu": "none", "gelu_tanh": "tanh"}  # name -> nn.GELU's `approximate`


@dataclass(frozen=True)
class ViViTConfig:
    """What defines a ViViT, apart from which of the models it is. Sizes are in voxels, tokens or channels.

    Raises ConfigError if a value is of another kind or out of range.
    """

    clip_shape: tuple[int, int, int, int] = (1, 28, 28, 28)  # (C, T, H, W)
    num_classes: int = 11
    tubelet: tuple[int, int, int] = (7, 7, 7)  # (t, h, w)
    tokenizer: str = "tubelet"  # or "frames": uniform frame sampling
    remainder: str = "refuse"  # or "pad", "crop": what to do with voxels that fill no tubelet
    dim: int = 128
    depth: int = 6  # Model 2: of the spatial encoder
    temporal_depth: int = 4  # Model 2 only; 0 is the mean over time
    heads: int = 4
    mlp_dim: int = 512
    pool: str = "mean"  # or "cls" (Models 1 and 2): a token that gathers the clip
    dropout: float = 0.0
    drop_path: float = 0.0  # stochastic depth: rate of the last layer, growing linearly from 0
    activation: str = "gelu"  # or "gelu_tanh", as in the authors' code

    def __post_init__(self) -> None:
        check_choice("tokenizer", self.tokenizer, TOKENIZERS)
        check_choice("remainder", self.remainder, REMAINDERS)
        check_choice("pool", self.pool, ("mean", "cls"))
        check_choice("activation", self.activation, ACTIVATIONS)
        check_sizes("clip_shape", self.clip_shape, "C, T, H, W")
        check_sizes("tubelet", self.tubelet, "t, h, w")
        for name in ("num_classes", "dim", "mlp_dim"):
            check_whole(name, getattr(self, name), 1)
        for name, least in (("depth", 1), ("temporal_depth", 0)):
            check_depth(name, getattr(self, name), least)
        check_heads(self.dim, self.heads)
        for name in ("dropout", "drop_path"):
            check_share(name, getattr(self, name))


class MLP(nn.Sequential):
    """Two linear maps with a GELU between them and none after the second: [..., D] -> [..., D]."""

    def __init__(self, config: ViViTConfig):
        super().__init__(
            nn.Linear(config.dim, config.mlp_dim),
            nn.GELU(approximate=ACTIVATIONS[config.activation]),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_dim, config.dim),
            nn.Dropout(config.dropout),
        )
        for linear in (self[0], self[3]):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, a clip skips this residual branch with the given rate.

    The branches that stay are scaled by 1 / (1 - rate), so that the expectation is unchanged.
    rows: how many rows of the batch, one after the other, belong to one clip and skip the branch together.
    forward: [B·rows, …] -> same.
    """

    def __init__(self, rate: float, rows: int = 1):
        super().__init__()
        self.rate, self.rows = rate, rows

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if self.rate == 0 or not self.training:
            return branch
        clips = len(branch) // self.rows
        stays = torch.rand(clips, *[1] * (branch.ndim - 1), device=branch.device) >= self.rate  # [B, 1, …]
        return branch * stays.repeat_interleave(self.rows, dim=0) / (1 - self.rate)


def layer_norm(config: ViViTConfig) -> nn.LayerNorm:
    """LayerNorm over a token's D numbers, with the ε of the authors' code."""
    return nn.LayerNorm(config.dim, eps=1e-6)


class Block(nn.Module):
    """The transformer's layer: y = MSA(LN z) + z, then MLP(LN y) + y (section 3.1). [B, N, D] -> same."""

    def __init__(self, config: ViViTConfig, drop_path: float = 0.0):
        super().__init__()
        self.norm_attention, self.norm_mlp = layer_norm(config), layer_norm(config)
        self.attention = MultiHeadAttention(config.dim, config.heads, config.dropout)
        self.mlp = MLP(config)
        self.drop_path = DropPath(drop_path)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = z + self.drop_path(self.attention(self.norm_attention(z)))
        return z + self.drop_path(self.mlp(self.norm_mlp(z)))


class FactorisedSelfAttentionBlock(nn.Module):
    """Model 3's layer: attention over space, attention over time, MLP, each with its own LayerNorm and
    residual connection (section 3.3). [B, nt, S, D] -> same."""

    def __init__(self, config: ViViTConfig, drop_path: float = 0.0):
        super().__init__()
        self.norm_space, self.norm_time, self.norm_mlp = (layer_norm(config) for _ in range(3))
        self.space_attention = MultiHeadAttention(config.dim, config.heads, config.dropout)
        self.time_attention = MultiHeadAttention(config.dim, config.heads, config.dropout)
        self.mlp = MLP(config)
        self.drop_path = DropPath(drop_path)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = z + self.drop_path(over_space(self.space_attention, self.norm_space(z)))
        z = z + self.drop_path(over_time(self.time_attention, self.norm_time(z)))
        return z + self.drop_path(self.mlp(self.norm_mlp(z)))


class FactorisedDotProductBlock(Block):
    """Model 4's layer: `Block`, but half of its heads attend over space and half over time. [B, nt, S, D] -> same."""

    def __init__(self, config: ViViTConfig, drop_path: float = 0.0):
        super().__init__(config, drop_path)
        self.attention = FactorisedDotProductAttention(config.dim, config.heads, config.dropout)


class Encoder(nn.Module):
    """`depth` blocks and a final LayerNorm. Stochastic depth grows linearly from 0 in the first block.

    block: a class such as `Block`, called with the config and a drop-path rate.
    """

    def __init__(self, block: Callable[[ViViTConfig, float], nn.Module], depth: int, config: ViViTConfig):
        super().__init__()
        last = max(depth - 1, 1)
        self.blocks = nn.ModuleList(block(config, config.drop_path * layer / last) for layer in range(depth))
        self.norm = layer_norm(config)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            z = block(z)
        return self.norm(z)


class ViViT(nn.Module):
    """What the models share: the tokenizer, the linear classifier on the pooled tokens, and their record.

    forward: clips float [B, C, T, H, W] in [0, 1] -> logits [B, num_classes].

    Each model carries its own record, from which everything else about it is read:
    title: what the paper calls it. paper: ViViT-B/16x2's millions of parameters and GFLOPs for one clip in table 2, or
    None for a model that the table does not have. kinds: the kinds of attention in one layer, in the order in which
    they are computed: "joint", "space", "time". attention_halves: whether these share the heads of one attention
    rather than follow each other. tokens_as: how the encoder sees its tokens: as one "sequence", on the "grid" of time
    indices and places, or in two "encoders", one after the other. positions_over: what its positions tell apart:
    "sequence" [1, nt·S, D], "space" [1, S, D] or "grid" [1, nt, S, D].
    """

    title: str
    paper: tuple[float, float] | None = None
    kinds: tuple[str, ...]
    attention_halves = False
    tokens_as: str
    positions_over: str
    configured_by = ViViTConfig

    def __init__(self, config: ViViTConfig):
        super().__init__()
        self.config = config
        self.embedding = TOKENIZERS[config.tokenizer](config.clip_shape, config.dim, config.tubelet, config.remainder)
        n_t, n_h, n_w = self.embedding.grid
        self.grid = (n_t, n_h * n_w)  # (nt, S)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.dim, config.num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def cls_token(self) -> nn.Parameter | None:
        """A token [1, 1, D] that gathers the others, or None where they are averaged."""
        return nn.Parameter(torch.zeros(1, 1, self.config.dim)) if self.config.pool == "cls" else None

    @classmethod
    def sees(cls, kind: str, n_t: int, s: int) -> torch.Tensor:
        """Which token (row) attends to which (column) in an attention of this kind: bool [N, N], N = nt·S.

        n_t, s: the time indices nt and the places S. Tokens count as in the models: all places of a time index,
        then those of the next.
        """
        token = torch.arange(n_t * s)
        if kind == "joint":
            return torch.ones(len(token), len(token), dtype=torch.bool)
        own = token // s if kind == "space" else token % s  # of the same time index, or at the same place
        return own[:, None] == own

    @classmethod
    def pairs(cls, kind: str, n_t: int, s: int) -> int:
        """How many True `sees` has, without making it: the pairs that one head of this kind compares for a clip."""
        return {"joint": (n_t * s) ** 2, "space": n_t * s**2, "time": s * n_t**2}[kind]

    @classmethod
    def pairs_per_head(cls, n_t: int, s: int) -> int:
        """The pairs that one layer compares for a clip, per head: of all its kinds, or half where they share heads."""
        pairs = sum(cls.pairs(kind, n_t, s) for kind in cls.kinds)
        return pairs // len(cls.kinds) if cls.attention_halves else pairs

    def sort_weights(self, record: list[torch.Tensor], batch: int) -> Iterator[tuple[int, str, torch.Tensor]]:
        """Attention weights in the order in which they were computed, as (layer, kind, weights).

        record: as the attention modules leave it. batch: B. weights: "joint" [B, heads, N, N],
        "space" [B, nt, heads, S, S], "time" [B, S, heads, nt, nt].
        """
        for i, weights in enumerate(record):
            kind = self.kinds[i % len(self.kinds)]
            yield i // len(self.kinds), kind, weights if kind == "joint" else unfold(weights, batch)


def unfold(weights: torch.Tensor, batch: int) -> torch.Tensor:
    """Takes time indices or places out of the batch again: [B·X, heads, N, N] -> [B, X, heads, N, N]."""
    return rearrange(weights, "(b x) h i j -> b x h i j", b=batch)


def read_out(z: torch.Tensor, cls: torch.Tensor | None) -> torch.Tensor:
    """One vector for many tokens: the cls token's, otherwise the mean of all. [B, N, D] -> [B, D]."""
    return z.mean(dim=1) if cls is None else z[:, 0]


class SpaceTime(ViViT):
    """Model 1, spatio-temporal attention: all nt·S tokens in one sequence, as in an image ViT."""

    title = "Model 1, spatio-temporal attention"
    paper = (88.9, 455.2)
    kinds = ("joint",)
    tokens_as = "sequence"
    positions_over = "sequence"

    def __init__(self, config: ViViTConfig):
        super().__init__(config)
        n_t, s = self.grid
        self.cls = self.cls_token()
        self.positions = learned_positions(n_t * s + (config.pool == "cls"), config.dim)
        self.encoder = Encoder(Block, config.depth, config)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        z = rearrange(self.embedding(clips), "b t s d -> b (t s) d")
        if self.cls is not None:
            z = prepend_cls(z, self.cls)  # [B, 1 + nt·S, D]
        z = self.dropout(z + self.positions)
        return self.head(read_out(self.encoder(z), self.cls))


class FactorisedEncoder(ViViT):
    """Model 2: a spatial encoder gives one vector per time index, a temporal encoder relates these vectors.

    The temporal encoder has positions of its own. temporal_depth=0 averages over time instead. The temporal
    positions are drawn with a standard deviation of 1, since the vectors they are added to come out of a LayerNorm:
    with 0.02 they drown in these, and two classes that differ only in the order of their frames are not learned.
    """

    title = "Model 2, factorised encoder"
    paper = (115.1, 284.4)  # 86.7 and 283.9 with average pooling over time
    kinds = ("space", "time")  # the layers over space first, all of them, then those over time
    tokens_as = "encoders"
    positions_over = "space"

    def __init__(self, config: ViViTConfig):
        super().__init__(config)
        n_t, s = self.grid
        extra = int(config.pool == "cls")
        self.cls = self.cls_token()
        self.positions = learned_positions(s + extra, config.dim)  # of space; time has its own below
        self.spatial_encoder = Encoder(Block, config.depth, config)
        for block in self.spatial_encoder.blocks:
            block.drop_path.rows = n_t  # a clip is n_t rows of this encoder's batch
        self.temporal_encoder = None
        if config.temporal_depth > 0:
            self.temporal_cls = self.cls_token()
            self.temporal_positions = learned_positions(n_t + extra, config.dim, std=1.0)
            self.temporal_encoder = Encoder(Block, config.temporal_depth, config)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        z = rearrange(self.embedding(clips), "b t s d -> (b t) s d")  # each time index on its own
        if self.cls is not None:
            z = prepend_cls(z, self.cls)
        z = self.dropout(z + self.positions)
        z = read_out(self.spatial_encoder(z), self.cls)
        z = rearrange(z, "(b t) d -> b t d", t=self.grid[0])  # one vector per time index
        if self.temporal_encoder is None:
            return self.head(z.mean(dim=1))
        if self.temporal_cls is not None:
            z = prepend_cls(z, self.temporal_cls)
        z = self.temporal_encoder(self.dropout(z + self.temporal_positions))
        return self.head(read_out(z, self.temporal_cls))

    @classmethod
    def sees(cls, kind: str, n_t: int, s: int) -> torch.Tensor:
        """As in ViViT, but the temporal encoder has one vector per time index: bool [nt, nt] for "time"."""
        return super().sees(kind, n_t, 1 if kind == "time" else s)

    @classmethod
    def pairs(cls, kind: str, n_t: int, s: int) -> int:
        """As in ViViT, but nt² for "time"."""
        return super().pairs(kind, n_t, 1 if kind == "time" else s)

    def sort_weights(self, record: list[torch.Tensor], batch: int) -> Iterator[tuple[int, str, torch.Tensor]]:
        """As in ViViT, but the temporal encoder's layers follow the spatial ones: "time" [B, heads, nt, nt]."""
        for layer, weights in enumerate(record):
            spatial = layer < self.config.depth
            yield layer, self.kinds[not spatial], unfold(weights, batch) if spatial else weights


class FactorisedSelfAttention(ViViT):
    """Model 3: tokens keep their place in the grid; each block attends over space, then over time."""

    title = "Model 3, factorised self-attention"
    paper = (117.3, 372.3)
    kinds = ("space", "time")
    tokens_as = "grid"
    positions_over = "grid"

    block = FactorisedSelfAttentionBlock

    def __init__(self, config: ViViTConfig):
        super().__init__(config)
        if config.pool == "cls":
            raise ConfigError(
                'Models 3 and 4 have no cls token, since a T\'×S grid has no place for one: take pool="mean"'
            )
        self.positions = learned_positions(*self.grid, config.dim)
        self.encoder = Encoder(self.block, config.depth, config)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        z = self.encoder(self.dropout(self.embedding(clips) + self.positions))  # [B, nt, S, D]
        return self.head(z.mean(dim=(1, 2)))


class FactorisedDotProduct(FactorisedSelfAttention):
    """Model 4: Model 1's weights, but half of the heads see only space, the other half only time."""

    title = "Model 4, factorised dot-product attention"
    paper = (88.9, 277.1)
    attention_halves = True

    block = FactorisedDotProductBlock
