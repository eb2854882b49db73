"""Multi-head attention, and the ways in which ViViT factorises it over space and time.

Built by hand in chapter 04 (multi-head attention), 07 (`over_space`, `over_time`) and
08 (`FactorisedDotProductAttention`).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .errors import ConfigError
from .support.torch_faults import plain_is_faster


def attention_weights(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """How much each query attends to each key: softmax(Q Kᵀ / √d), rows summing to 1.

    queries, keys: [..., N, d]; returns [..., N, N]. (Vaswani et al. 2017, equation 1.)
    """
    scaled = queries / queries.shape[-1] ** 0.5  # [..., N, d]: fewer numbers to divide than the products have
    return (scaled @ keys.transpose(-2, -1)).softmax(dim=-1)  # [..., N, N]


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    dropout: float = 0.0,
    record: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Scaled dot-product attention: the values, averaged with the attention weights.

    queries, keys, values: [B, heads, N, d]; returns [B, heads, N, d].
    dropout: the share of weights set to zero; give 0 outside training.
    record: a list to which the weights [B, heads, N, N] are appended. The fused kernel never holds them all at
    once, so with a record the plain path is taken: its result is the same, but it is slower for long sequences.
    """
    if record is None and not plain_is_faster(queries):
        return F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
    weights = attention_weights(queries, keys)
    if record is not None:
        record.append(weights)
    return F.dropout(weights, dropout) @ values


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention among N tokens (MSA in the paper, section 3.1).

    dim: width D of a token, divided evenly among the heads; dropout: on the attention weights.
    forward: [B, N, D] -> [B, N, D]. Give `record` a list and forward appends its weights to it.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0):
        super().__init__()
        check_heads(dim, heads)
        self.heads, self.dropout = heads, dropout
        self.record: list[torch.Tensor] | None = None
        self.qkv = nn.Linear(dim, 3 * dim)  # queries, keys and values in one product
        self.out = nn.Linear(dim, dim)  # W_O
        init_attention(self)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(tokens).chunk(3, dim=-1)  # three times [B, N, D]
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=self.heads) for part in qkv)
        y = attend(q, k, v, dropout=self.dropout * self.training, record=self.record)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class FactorisedDotProductAttention(nn.Module):
    """Half of the heads attend over space, the other half over time (Model 4, section 3.3).

    The same weights as `MultiHeadAttention`, so the same number of parameters: only which keys a head
    can see differs. Y = Concat(Y_s, Y_t) W_O, the first half of the heads being the spatial ones.
    forward: [B, nt, S, D] -> [B, nt, S, D]. `record` gets two entries: the spatial weights
    [B·nt, heads/2, S, S], then the temporal ones [B·S, heads/2, nt, nt].
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0):
        super().__init__()
        check_heads(dim, heads)
        if heads % 2:
            raise ConfigError(
                f"Model 4 gives half of its heads to space and half to time: heads={heads} is odd; "
                f"take {heads + 1} or another even number that divides dim={dim}"
            )
        self.heads, self.dropout = heads, dropout
        self.record: list[torch.Tensor] | None = None
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        init_attention(self)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        _, t, s, _ = tokens.shape
        options = {"dropout": self.dropout * self.training, "record": self.record}
        space, time = rearrange(
            self.qkv(tokens), "b t s (three half h d) -> half three b t s h d", three=3, half=2, h=self.heads // 2
        )
        y_space = attend(*rearrange(space, "three b t s h d -> three (b t) h s d"), **options)
        y_time = attend(*rearrange(time, "three b t s h d -> three (b s) h t d"), **options)
        y_space = rearrange(y_space, "(b t) h s d -> b t s (h d)", t=t)  # [B, nt, S, D/2]
        y_time = rearrange(y_time, "(b s) h t d -> b t s (h d)", s=s)  # [B, nt, S, D/2]
        return self.out(torch.cat((y_space, y_time), dim=-1))  # [B, nt, S, D]


def over_space(attention: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """Applies `attention` among the tokens of each time index: [B, nt, S, D] -> [B, nt, S, D].

    Time indices join the batch, so none of them sees another.
    """
    folded = rearrange(tokens, "b t s d -> (b t) s d")
    return rearrange(attention(folded), "(b t) s d -> b t s d", t=tokens.shape[1])


def over_time(attention: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """Applies `attention` among the tokens of each place: [B, nt, S, D] -> [B, nt, S, D]."""
    folded = rearrange(tokens, "b t s d -> (b s) t d")
    return rearrange(attention(folded), "(b s) t d -> b t s d", s=tokens.shape[2])


def check_heads(dim: int, heads: int) -> None:
    """Raises ConfigError if the heads cannot share the width evenly, and names the numbers that can."""
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1 or dim % heads:
        fits = [h for h in range(1, min(dim, 32) + 1) if dim % h == 0]
        raise ConfigError(f"dim={dim} cannot be shared by heads={heads!r}; heads that divide it: {fits}")


def init_attention(attention: nn.Module) -> None:
    """Xavier-uniform weights for each of W_Q, W_K, W_V, W_O on its own, zero biases, as in the authors' code."""
    for weight in (*attention.qkv.weight.chunk(3), attention.out.weight):
        nn.init.xavier_uniform_(weight)
    nn.init.zeros_(attention.qkv.bias)
    nn.init.zeros_(attention.out.bias)
