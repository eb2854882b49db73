"""What the checks of modules in chapters 05 to 08 share: parts by name, properties of a whole, copied weights.

A module is checked by its parts, which the task names: each part is looked at on its own, and the expected output of
the whole is put together from them. Then weights are copied into torch's or the package's module, and both must agree.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from . import CheckFailed, call, close, drawn, kind, learns

# Sizes that differ on every axis, and none of which is the notebook's
DIM, HEADS, MLP_DIM = 12, 3, 20
CLIP, TUBELET, GRID, CLASSES, DEPTH = (2, 9, 8, 25), (3, 4, 5), (3, 2, 5), 7, 3


# ---- parts


def built_module(cls: Callable, *sizes: object) -> nn.Module:
    """The reader's module of these sizes, in eval mode. Raises CheckFailed where the class makes something else."""
    module = call(cls, *sizes)
    check_is_module(module)
    return module.eval()


def check_is_module(module: object) -> None:
    """Raises CheckFailed unless it is a module whose __init__ began as every module's does."""
    if not isinstance(module, nn.Module):
        raise CheckFailed(f"expected a class that inherits from nn.Module, got {kind(module)}")
    if not hasattr(module, "_modules"):
        raise CheckFailed(f"the __init__ of your {type(module).__name__} must begin with super().__init__()")


def part_of(module: nn.Module, name: str) -> nn.Module:
    """The part of this name. Raises CheckFailed where there is none."""
    part = getattr(module, name, None)
    if part is None:
        raise CheckFailed(f"the module has no part `{name}`: the task names its parts, so that weights can be copied")
    if not isinstance(part, nn.Module):
        raise CheckFailed(f"`{name}` is {kind(part)}: expected a module")
    return part


def check_norm(part: object, name: str, dim: int) -> None:
    """Raises CheckFailed unless the part is a LayerNorm over `dim` features, with scale, shift and the paper's ε."""
    if not isinstance(part, nn.LayerNorm):
        raise CheckFailed(
            f"`{name}` is {kind(part)}: expected nn.LayerNorm, which normalises each token on its own, without the "
            "other tokens and clips"
        )
    if tuple(part.normalized_shape) != (dim,) or part.weight is None or part.bias is None:
        raise CheckFailed(
            f"`{name}` must normalise the {dim} features of a token, with scale and shift: nn.LayerNorm(dim)"
        )
    if part.eps != 1e-6:
        raise CheckFailed(
            f"`{name}` has eps={part.eps:g}, expected nn.LayerNorm(dim, eps=1e-6): torch's own default is 1e-5"
        )


def check_mlp(mlp: nn.Module) -> None:
    """Raises CheckFailed unless it is D -> mlp_dim, GELU, mlp_dim -> D; compared with torch's functions."""
    linears = linears_of(mlp, DIM)
    sizes = [(part.in_features, part.out_features) for part in linears]
    if sizes != [(DIM, MLP_DIM), (MLP_DIM, DIM)]:
        said = ", ".join(f"{a} to {b}" for a, b in sizes) or "no linear map"
        raise CheckFailed(
            f"with dim={DIM} and mlp_dim={MLP_DIM} the MLP has {said}: expected two linear maps, "
            f"{DIM} to {MLP_DIM} and {MLP_DIM} to {DIM}"
        )
    widen, narrow = linears
    if widen.bias is None or narrow.bias is None:
        raise CheckFailed("a linear map of the MLP has no bias: leave bias=True, as published weights have one")
    x = drawn(2, 3, DIM, seed=7)
    with torch.no_grad():
        hidden = widen(x)
        close(
            mlp.eval()(x),
            narrow(F.gelu(hidden)),
            {
                "the MLP has no non-linearity: two linear maps in a row are one": narrow(hidden),
                "the MLP has a ReLU: the paper's non-linearity is GELU": narrow(hidden.relu()),
                "the MLP computes GELU by its tanh form: take nn.GELU() without approximate": narrow(
                    F.gelu(hidden, approximate="tanh")
                ),
                "the MLP has a SiLU: the paper's non-linearity is GELU": narrow(F.silu(hidden)),
                "the MLP ends in a second GELU: its last step is linear": F.gelu(narrow(F.gelu(hidden))),
                "the MLP's GELU comes after the second linear map: it belongs between the two": F.gelu(narrow(hidden)),
            },
            what="the MLP's output",
        )


def linears_of(mlp: nn.Module, dim: int) -> list[nn.Linear]:
    """The linear maps of an MLP in the order of their use: first the one that reads `dim` features."""
    linears = [part for part in mlp.modules() if isinstance(part, nn.Linear)]
    return sorted(linears, key=lambda part: part.in_features != dim)


def heads_of(attention: nn.Module) -> int:
    """The number of heads, of chapter 04's module or torch's. Raises CheckFailed where it does not say."""
    heads = getattr(attention, "heads", None) or getattr(attention, "num_heads", None)
    if not isinstance(heads, int):
        raise CheckFailed("`attention` has no attribute `heads`: use the MultiHead of chapter 04")
    return heads


def check_head_count(attention: nn.Module, whose: str) -> None:
    """Raises CheckFailed unless an attention has the heads that were asked for. whose: "a block"."""
    if (heads := heads_of(attention)) != HEADS:
        raise CheckFailed(f"with heads={HEADS}, {whose} has {heads} heads: hand on `heads`")


def check_width(mlp: nn.Module, whose: str) -> None:
    """Raises CheckFailed unless an MLP has the width that was asked for. whose: "a block"."""
    widths = [part.out_features for part in linears_of(mlp, DIM)] or [0]
    if widths[0] != MLP_DIM:
        raise CheckFailed(f"with mlp_dim={MLP_DIM}, {whose} has an MLP of width {widths[0]}: hand on `mlp_dim`")


# ---- a whole


@torch.no_grad()
def fill_large(module: nn.Module, std: float = 0.4) -> None:
    """Fills all parameters with noise so large that a missing norm or residual shows."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.normal_(std=std, generator=generator)


def check_train_mode(module: nn.Module, x: torch.Tensor) -> None:
    """Raises CheckFailed where the output in train mode is another one, or a mode is left behind."""
    with torch.no_grad():
        quiet = module.eval()(x)
        trained = module.train()(x)
    left = all(part.training for part in module.modules())
    module.eval()
    if not left:
        raise CheckFailed("forward switches to eval mode and leaves the module in it: leave eval() and train() out")
    if not torch.equal(quiet, trained):
        raise CheckFailed("in train mode the output differs from that in eval mode: leave dropout out here")


def check_double(module: nn.Module, x: torch.Tensor) -> None:
    """Numbers of another precision go through, and come out as precise; CheckFailed otherwise."""
    with torch.no_grad():
        expected = module(x)
        check_same_type(call(copy.deepcopy(module).double().forward, x.double()), x.double(), "the output", expected)


def check_same_type(found: torch.Tensor, given: torch.Tensor, what: str, expected: torch.Tensor | None = None) -> None:
    """Raises CheckFailed where a result has another dtype or device than the input, or other values than expected."""
    if found.dtype != given.dtype or found.device != given.device:
        raise CheckFailed(
            f"{what} is {found.dtype}, given {given.dtype}: make new tensors like those given (torch.zeros_like(x), "
            "x.new_zeros(…), dtype=x.dtype), and keep their type"
        )
    if expected is not None:
        close(found, expected.to(found.dtype), what=f"{what} in {found.dtype}", tolerance=1e-4)


def check_reached(module: nn.Module, x: torch.Tensor, reference: nn.Module | None = None) -> None:
    """A gradient reaches the input, where it is the reference's, and every parameter; CheckFailed otherwise."""
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise CheckFailed(f"{frozen[0]} has requires_grad=False: it would never learn")
    found = learns(lambda inputs, module: module(inputs), x, module)["inputs"]
    if reference is not None:
        expected = learns(lambda x: reference(x), x)["x"]
        if (found - expected).abs().max() > 1e-2 * expected.abs().max():
            raise CheckFailed(
                "the values are right, but the gradient of the input is not: a part of the way was cut off (.detach(), "
                ".data, no_grad), so that what comes before would learn something else"
            )


# ---- copying weights


def attend_with(attention: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """An attention module as a function of the tokens; torch's own takes them three times."""
    if isinstance(attention, nn.MultiheadAttention):
        return lambda z: attention(z, z, z, need_weights=False)[0]
    return attention


def projections(attention: nn.Module) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weights of a multi-head attention: queries, keys and values in one [3·D, D] with its bias, then the output's.

    attention: chapter 04's, the package's or torch's; one with a single linear map for q, k, v, or with three.
    Raises CheckFailed where it holds something else.
    """
    if isinstance(attention, nn.MultiheadAttention):
        return attention.in_proj_weight, attention.in_proj_bias, attention.out_proj.weight, attention.out_proj.bias
    linears = [part for part in attention.modules() if isinstance(part, nn.Linear)]
    *qkv, out = sorted(linears, key=lambda part: -part.out_features) or [None]  # one map for all three is the widest
    if len(linears) not in (2, 4) or any(part.bias is None for part in linears):
        raise CheckFailed(
            "`attention` must be the MultiHead of chapter 04: linear maps for queries, keys and values, and one for "
            "the output, all with biases"
        )
    if len(qkv) == 1:
        return qkv[0].weight, qkv[0].bias, out.weight, out.bias
    return torch.cat([part.weight for part in qkv]), torch.cat([part.bias for part in qkv]), out.weight, out.bias


def as_filters(E: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """E of a reader's embedding as a convolution's filters [D, C, pt, ph, pw], this shape, in the same memory.

    The reader may keep it as [D, V], as nn.Linear does, or as [V, D] too. Raises CheckFailed where it is neither.
    """
    values = math.prod(shape[1:])
    if list(E.shape) in (list(shape), [shape[0], values]):
        return E.view(tuple(shape))
    if list(E.shape) == [values, shape[0]]:  # as it is multiplied from the right
        return E.T.unflatten(1, tuple(shape[1:]))
    raise CheckFailed(
        f"E has shape {list(E.shape)}, expected {list(shape)} or {[shape[0], values]}: in the order (c pt ph pw), as "
        "time, height and width come in the clip"
    )


def as_convolution(embedding: nn.Module, clip_shape: Sequence[int] | None = None) -> nn.Conv3d:
    """The convolution of a reader's embedding, or one with its E and b in the same memory where it keeps them in
    another way. clip_shape: (C, T, H, W), which tells in that case how large a tubelet is."""
    convolutions = [part for part in embedding.modules() if isinstance(part, nn.Conv3d)]
    if convolutions:
        return convolutions[0]
    parameters = sorted(embedding.parameters(), key=torch.numel)
    if len(parameters) != 2 or clip_shape is None:
        raise CheckFailed("`embedding` must be the one of chapter 03, whose only parameters are E and b")
    bias, E = parameters
    channels, *size = clip_shape
    tubelet = tuple(n // int(count) for n, count in zip(size, embedding.grid))
    convolution = nn.Conv3d(channels, bias.numel(), tubelet, tubelet, device="meta")
    convolution.weight = nn.Parameter(as_filters(E.detach(), convolution.weight.shape))
    convolution.bias = nn.Parameter(bias.detach().view(-1))
    return convolution


def named_as_package(model: nn.Module, clip_shape: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
    """The weights of a reader's Model 1 under the names of the package's. clip_shape: see `as_convolution`."""
    weights = {"positions": model.positions}
    if model.cls is not None:
        weights["cls"] = model.cls
    parts = {"embedding.projection": as_convolution(model.embedding, clip_shape)}
    parts |= {"encoder.norm": model.head.norm, "head": model.head.linear}
    for k, block in enumerate(model.blocks):
        here = f"encoder.blocks.{k}"
        widen, narrow = linears_of(block.mlp, model.positions.shape[-1])
        parts |= {f"{here}.mlp.0": widen, f"{here}.mlp.3": narrow}
        parts |= {f"{here}.norm_attention": block.norm_attention, f"{here}.norm_mlp": block.norm_mlp}
        names = ("qkv.weight", "qkv.bias", "out.weight", "out.bias")
        weights |= {f"{here}.attention.{name}": w for name, w in zip(names, projections(block.attention))}
    weights |= {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    return {name: value.detach() for name, value in weights.items()}


def say_difference(mine: str, theirs: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Prints that two modules agree, by their names in words; raises CheckFailed where their outputs differ."""
    difference, scale = (found - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= 1e-4 * max(scale, 1):  # nan is a difference, too
        raise CheckFailed(f"{mine} and {theirs} differ by up to {difference:.2g} (values up to {scale:.2g})")
    print(f"{mine} and {theirs} agree in all {found.numel():,} numbers.")
