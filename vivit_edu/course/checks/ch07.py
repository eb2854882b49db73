"""Checks of chapter 07: attention over time, the block of Model 3, its start as an image model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import nn

from ...attention import MultiHeadAttention, over_space
from ...vivit import FactorisedSelfAttentionBlock, ViViTConfig
from ..ready import ch07 as finished
from . import CheckFailed, call, close, examine, exercise, passed

B, T, S, D = 3, 4, 5, 8  # all different, so that an axis taken for another shows in a shape or a value


def strong(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fills a module with weights large enough that attention is far from an average, biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.6 * noise)
    return module.eval()


def example_block(seed: int = 0) -> nn.Module:
    return strong(FactorisedSelfAttentionBlock(ViViTConfig(dim=D, heads=2, mlp_dim=16)), seed)


def example_tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(7))


# ---- 07.1


@exercise
def check_over_time(over_time: Callable) -> None:
    """over_time(attention, tokens [B, T', S, D]) -> [B, T', S, D], where tokens of one place attend to each other."""
    attention, tokens = strong(MultiHeadAttention(D, heads=2)), example_tokens(B, T, S)
    with torch.no_grad():
        found = call(over_time, attention, tokens)
        expected = torch.stack([attention(tokens[:, :, place]) for place in range(S)], dim=2)
        close(
            found,
            expected,
            {
                "this is attention over space: tokens of one time index saw each other. Of T' and S, the one that "
                "attends stays an axis of its own, the other joins the batch": over_space(attention, tokens),
                "every token saw all T'·S tokens: that is Model 1. Places must join the batch: (b s)": rearrange(
                    attention(rearrange(tokens, "b t s d -> b (t s) d")), "b (t s) d -> b t s d", t=T
                ),
                "the axes were regrouped without being moved: view and reshape keep the order in memory, which is "
                "b, t, s, d, so the T' tokens of a group are not those of one place. rearrange "
                "moves S before T'": attention(tokens.reshape(B * S, T, D)).reshape(B, T, S, D),
                "folded well, but unfolded by view or reshape: after attention the order is b, s, t, d, so S must "
                "be moved back behind T'": lambda: attention(fold(tokens)).reshape(B, T, S, D),
                "folded as (b s) and unfolded as (s b), or the other way round: the clips of the "
                "batch got mixed up": lambda: rearrange(attention(fold(tokens)), "(s b) t d -> b t s d", b=B),
                "the axis of attention is not T' but the batch: one clip saw another. MultiHeadAttention takes "
                "[batch, tokens, D], tokens second": lambda: rearrange(
                    attention(rearrange(tokens, "b t s d -> (t s) b d")), "(t s) b d -> b t s d", t=T
                ),
                "the time index and the clip were joined into one sequence of B·T' tokens: one "
                "clip saw another": lambda: rearrange(
                    attention(rearrange(tokens, "b t s d -> s (b t) d")), "s (b t) d -> b t s d", b=B
                ),
                "the sequence is (b s), so places and clips saw each other and time indices did not: the tokens that "
                "attend are the second axis": lambda: rearrange(
                    attention(rearrange(tokens, "b t s d -> t (b s) d")), "t (b s) d -> b t s d", b=B
                ),
                "nothing attended: the tokens came back as they were. Call attention(...)": tokens,
                "the residual connection is the block's business: return what attention gives, "
                "without adding the tokens": expected + tokens,
            },
        )
    others = (attention, example_tokens(1, 3, 2)), (attention, example_tokens(2, 1, 7))
    examine(over_time, finished.over_time, (attention, tokens), *others)
    passed("07.1", "each place attends over time, and no place, no clip sees another.")


def fold(tokens: torch.Tensor) -> torch.Tensor:
    return rearrange(tokens, "b t s d -> (b s) t d")


# ---- 07.2


@exercise
def check_time_first(time_first: Callable) -> None:
    """time_first(block, z [B, T', S, D]): the block's layer with attention over time before attention over space."""
    block, given, z = example_block(), example_block(), example_tokens(B, T, S)
    with torch.no_grad():
        found = call(time_first, given, z)
        # Time first is space first with the roles exchanged: transpose the grid, and let each attention do the work
        # of the other.
        expected = exchanged(block)(z.transpose(1, 2)).transpose(1, 2)
        close(found, expected, mistakes_of_time_first(block, z))
    others = (block, example_tokens(1, 6, 2)), (example_block(3), example_tokens(2, 3, 1))
    examine(time_first, finished.time_first, (block, z), *others)
    passed("07.2", "time, then space, then the MLP, each with its own LayerNorm and its residual.")


def exchanged(block: nn.Module) -> nn.Module:
    """The block with attention over space and over time having changed places, LayerNorms included."""
    twin = copy.deepcopy(block)
    twin.norm_space, twin.norm_time = twin.norm_time, twin.norm_space
    twin.space_attention, twin.time_attention = twin.time_attention, twin.space_attention
    return twin


def mistakes_of_time_first(block: nn.Module, z: torch.Tensor) -> dict[str, Any]:
    def time(y, norm=block.norm_time, attention=block.time_attention):
        return rearrange(attention(fold(norm(y))), "(b s) t d -> b t s d", b=len(z))

    def space(y, norm=block.norm_space, attention=block.space_attention):
        return over_space(attention, norm(y))

    def mlp(y, norm=block.norm_mlp):
        return block.mlp(norm(y))

    def plain(y):
        return y

    def chain(*steps):
        y = z
        for step in steps:
            y = step(y)
        return y

    def add(branch, **options):
        return lambda y: y + branch(y, **options)

    t, s, m = add(time), add(space), add(mlp)
    return {
        "this is the paper's order, space first: here time comes first": chain(s, t, m),
        "the residual connection around the attention over time is missing: z + …": chain(time, s, m),
        "the residual connection around the attention over space is missing: y_t + …": chain(t, space, m),
        "the residual connection around the MLP is missing: y_s + …": chain(t, s, mlp),
        "no residual connection anywhere: each of the three steps is y = branch(LN y) + y": chain(time, space, mlp),
        "the MLP is missing: it is the third step": chain(t, s),
        "both attentions saw the same z, in parallel: the second one must see the result of the first": lambda: m(
            z + time(z) + space(z)
        ),
        "the residual of the attention over space is the block's input z, not the result y_t of "
        "the step before": lambda: m(z + space(t(z))),
        "the residual of the MLP is the block's input z, not the result of the step before": lambda: z + mlp(s(t(z))),
        "the residual goes through LayerNorm: normalise what the branch sees, not what is added back": lambda: chain(
            *(
                lambda y, n=n, f=f: n(y) + f(y)
                for n, f in ((block.norm_time, time), (block.norm_space, space), (block.norm_mlp, mlp))
            )
        ),
        "LayerNorm is missing in all three branches: each sees LN y": chain(
            add(time, norm=plain), add(space, norm=plain), add(mlp, norm=plain)
        ),
        "LayerNorm is missing before the attention over time": chain(add(time, norm=plain), s, m),
        "LayerNorm is missing before the attention over space": chain(t, add(space, norm=plain), m),
        "LayerNorm is missing before the MLP": chain(t, s, add(mlp, norm=plain)),
        "the LayerNorms are exchanged: norm_time belongs to the attention over time, norm_space "
        "to that over space": chain(add(time, norm=block.norm_space), add(space, norm=block.norm_time), m),
        "the order of the modules changed but not their axes: time_attention ran among the tokens of a time index, "
        "space_attention among those of a place": chain(
            add(space, norm=block.norm_time, attention=block.time_attention),
            add(time, norm=block.norm_space, attention=block.space_attention),
            m,
        ),
        "the attentions are exchanged: over time goes block.time_attention, over space block.space_attention": chain(
            add(time, attention=block.space_attention), add(space, attention=block.time_attention), m
        ),
    }


# ---- 07.3


@exercise
def check_starts_as_identity(start_as_identity: Callable) -> None:
    """start_as_identity(block): the temporal branch adds nothing at first, and all its matrices learn."""
    block = example_block()
    before, modules = {name: value.clone() for name, value in block.state_dict().items()}, list(block.modules())
    returned = call(start_as_identity, block, may_change=(0,))
    block = returned if isinstance(returned, nn.Module) else block
    if not isinstance(getattr(block, "time_attention", None), MultiHeadAttention):
        raise CheckFailed("block.time_attention is no MultiHeadAttention any more: change its weights, not the module")
    now = block.state_dict()
    touched = sorted(
        {name.split(".")[0] for name in before if not torch.equal(before[name], now[name])} - {"time_attention"}
    )
    if touched:
        raise CheckFailed(f"{', '.join(touched)} changed: only the temporal attention's weights may be touched")
    if any(now[name].shape != value.shape for name, value in before.items()):
        raise CheckFailed("time_attention has weights of another shape now: fill them in place, nn.init.zeros_(…)")
    if any(module.training for module in modules):
        raise CheckFailed("a part of the block is left in train mode: it was in eval mode; change weights alone")
    frozen = [name for name, p in block.named_parameters() if not p.requires_grad]
    if frozen:
        raise CheckFailed(f"{frozen[0]} is frozen: a zero that must stay zero never learns; leave requires_grad alone")
    check_adds_nothing(block)
    check_learns(block)
    wider = strong(FactorisedSelfAttentionBlock(ViViTConfig(dim=12, heads=3, mlp_dim=20)))
    returned = call(start_as_identity, wider, may_change=(0,))
    wider = returned if isinstance(returned, nn.Module) else wider
    if wider.time_attention.out.weight.shape != (12, 12):
        raise CheckFailed(
            f"of a block of width 12 the output projection is now {list(wider.time_attention.out.weight.shape)}: a "
            "size is written into the code; fill the weights in place instead, nn.init.zeros_(…)"
        )
    check_adds_nothing(wider)
    passed("07.3", "at first the block is the image model's, and all of its temporal attention learns.")


def check_adds_nothing(block: nn.Module) -> None:
    out = block.time_attention.out
    tokens = torch.randn(B, T, S, out.out_features, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        added = block.time_attention(block.norm_time(fold(tokens)))
    if not added.abs().max() > 0:
        return
    if not out.weight.abs().max() > 0:
        raise CheckFailed(
            "W_O is zero, but its bias is not, so the branch still adds that bias to every token: zero it, too"
        )
    if not added.var(dim=(0, 1)).max() > 1e-9:
        raise CheckFailed(
            "the branch still adds the same vector to every token: look at the bias of the output projection"
        )
    raise CheckFailed(
        "the temporal branch still adds something to the tokens: its last map, time_attention.out, must be zero "
        "(fill it in place: with torch.no_grad(), or nn.init.zeros_)"
    )


def check_learns(block: nn.Module) -> None:
    """After three plain steps each of W_Q, W_K, W_V, W_O must have had a gradient."""
    twin, tokens = copy.deepcopy(block), example_tokens(B, T, S)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    learned = {}
    for _ in range(3):
        optimiser.zero_grad()
        (twin(tokens) - tokens.roll(1, dims=1)).square().mean().backward()
        optimiser.step()
        matrices = dict(zip("QKV", twin.time_attention.qkv.weight.grad.chunk(3))) | {
            "O": twin.time_attention.out.weight.grad
        }
        learned |= {name: True for name, gradient in matrices.items() if gradient.abs().max() > 0}
    missing = [f"W_{name}" for name in "QKVO" if name not in learned]
    if len(missing) == 4:
        raise CheckFailed(
            "this is the trap: with all of the temporal attention zero, only the bias of W_O gets a gradient, and "
            "W_Q, W_K, W_V, W_O stay zero for ever. Zero the output projection alone"
        )
    if missing:
        raise CheckFailed(
            f"{', '.join(missing)} got no gradient in three steps: of two factors of a product that are both zero, "
            "neither has a gradient. Zero the output projection alone"
        )
