"""Checks of chapter 05: the cls token, the encoder block, the head, Model 1, a test of models, and a training loop.

A module is checked by its parts: the expected output is put together from the parts that the reader's module owns, and
the parts are then compared with torch's or the package's by copying weights.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from functools import cache
from numbers import Real

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ...models import build_model
from ..ready.ch05 import ClassifierHead, EncoderBlock, Model1, prepend_cls
from . import CheckFailed, call, close, drawn, exercise, flag, kind, learns, passed, same_shape
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
    attend_with,
    built_module,
    check_double,
    check_mlp,
    check_norm,
    check_reached,
    check_same_type,
    check_train_mode,
    fill_large,
    heads_of,
    linears_of,
    named_as_package,
    part_of,
    projections,
    say_difference,
)

TO_ONE_SEQUENCE = "b nt s d -> b (nt s) d"
BATCH_TRAP = "the attention runs over the batch, so clips attend to each other: its axes are [B, N, D], batch first"


# ---- 05.1


@exercise
def check_prepend_cls(prepend_cls: Callable) -> None:
    """05.1: prepend_cls(tokens [B, N, D], cls [1, 1, D]) -> [B, 1 + N, D], the cls token first in each clip."""
    for tokens, cls in (
        (drawn(3, 4, 5), drawn(1, 1, 5, seed=1)),
        (drawn(1, 6, 2), drawn(1, 1, 2, seed=1)),
        (drawn(2, 3, 7).double(), drawn(1, 1, 7, seed=1).double()),
    ):
        copies = cls.repeat(len(tokens), 1, 1)  # [B, 1, D]
        expected = torch.cat((copies, tokens), dim=1)
        overwritten, first_clip, nothing = expected[:, :-1].clone(), expected.clone(), expected.clone()
        overwritten[:, 1:] = tokens[:, 1:]
        first_clip[1:, 0] = nothing[:, 0] = 0
        copy_it = (
            "cls is [1, 1, D] for all clips together: give each of the B clips a copy (expand), then join them along "
            "the axis of tokens, dim=1"
        )
        found = call_with_hints({"must match": copy_it, "must have the same": copy_it}, prepend_cls, tokens, cls)
        close(
            found,
            expected,
            {
                "the cls token comes last: it belongs before the others, at index 0, where the "
                "head looks for it": torch.cat((tokens, copies), dim=1),
                "the first token was overwritten: cls is one more token, so N tokens become N + 1": overwritten,
                "cls was added to every token: it is a token of its own, joined along the axis of tokens": tokens
                + copies,
                "only the first clip has a cls token: every clip needs one": first_clip,
                "the new token is all zeros: it must be the `cls` that was given, which the model learns": nothing,
                "cls was joined along the axis of features: tokens are joined along dim=1": lambda: torch.cat(
                    (copies.expand(-1, tokens.shape[1], -1), tokens), dim=2
                ),
            },
            what="the sequence",
        )
        check_same_type(found, tokens, "the sequence")
    tokens, cls = drawn(3, 4, 5), nn.Parameter(drawn(1, 1, 5, seed=1))
    found = call(prepend_cls, tokens, cls)
    if not found.requires_grad:
        raise CheckFailed(
            "no gradient reaches cls: the values are right, but it was detached (.data, .detach(), "
            "torch.tensor(...), no_grad), so it would never learn"
        )
    found.sum().backward()
    if cls.grad is None or not torch.allclose(cls.grad, torch.full_like(cls, 3.0)):
        raise CheckFailed("the gradient of cls is not the sum over the 3 clips: each clip must hold the same parameter")
    learns(prepend_cls, drawn(3, 4, 5), drawn(1, 1, 5, seed=1))
    passed("05.1", "each clip has its cls token in front, and all of them share one parameter.")


# ---- 05.2


@exercise
def check_block(EncoderBlock: Callable) -> None:
    """05.2: EncoderBlock(dim, heads, mlp_dim) maps [B, N, D] to the same shape, as torch's pre-norm layer does."""
    block = built_module(EncoderBlock, DIM, HEADS, MLP_DIM)
    for name in ("norm_attention", "attention", "norm_mlp", "mlp"):
        part_of(block, name)
    check_norm(block.norm_attention, "norm_attention", DIM)
    check_norm(block.norm_mlp, "norm_mlp", DIM)
    if block.norm_attention is block.norm_mlp:
        raise CheckFailed("both LayerNorms are one module, with one scale and shift: make two of them")
    fill_large(block)
    z = drawn(4, 6, DIM, seed=2)
    attention, mlp, n1, n2 = attend_with(block.attention), block.mlp, block.norm_attention, block.norm_mlp
    check_mlp(mlp)
    found = call(block.forward, z)
    with torch.no_grad():
        _compare_block(found, z, n1, attention, n2, mlp)
        if not torch.allclose(found[:1], block(z[:1]), rtol=1e-4, atol=1e-4):
            raise CheckFailed(f"{BATCH_TRAP} (nn.MultiheadAttention needs batch_first=True)")
        library = torch_layer(block)
        close(
            found,
            library(z),
            {
                f"the block was made with {HEADS} heads, but its attention has a different number of them": lambda: (
                    _other_heads(block, z)
                )
            },
            what="the output, compared with torch's layer with the same weights,",
            tolerance=1e-4,
        )
    check_train_mode(block, z)
    for other in (drawn(1, 9, DIM, seed=3), drawn(5, 1, DIM, seed=4)):  # one clip; one token
        with torch.no_grad():
            expected = library(other)
        close(call(block.forward, other), expected, what="the output for other sizes", tolerance=1e-4)
    check_double(block, z)
    check_reached(block, z, library)
    passed("05.2", "equal to torch's nn.TransformerEncoderLayer(norm_first=True) with the same weights.")


def _compare_block(found, z, n1, attention, n2, mlp):
    y = z + attention(n1(z))
    same_shape(found, z, "the block's output")
    if torch.allclose(found, y + mlp(n2(y)), rtol=1e-5, atol=1e-5):
        return
    attention_first, mlp_first = attention(n1(z)), z + mlp(n2(z))
    normed = n1(z) + attention_first
    post = n1(z + attention(z))
    mistakes = {
        "the residual around the attention is missing: y = MSA(LN z) + z": attention_first + mlp(n2(attention_first)),
        "the residual around the MLP is missing: z' = MLP(LN y) + y": mlp(n2(y)),
        "both residuals are missing: each step adds its input to what it computes": mlp(n2(attention_first)),
        "LayerNorm comes after the sum (post-norm, as in the transformer of 2017): ViViT normalises the input of each "
        "branch and leaves the sum as it is": n2(post + mlp(post)),
        "LayerNorm comes after the attention and after the MLP: it belongs before each of them, on the input of the "
        "branch": ((x := n1(attention(z)) + z) + n2(mlp(x))),
        "LayerNorm comes after the attention: it belongs before it, on the input of the branch": (
            (x := n1(attention(z)) + z) + mlp(n2(x))
        ),
        "LayerNorm comes after the MLP: it belongs before it, on the input of the branch": y + n2(mlp(y)),
        "the two LayerNorms are swapped: norm_attention goes before the attention, norm_mlp before the MLP": (
            (x := z + attention(n2(z))) + mlp(n1(x))
        ),
        "norm_attention is used twice: the MLP has a LayerNorm of its own, norm_mlp": y + mlp(n1(y)),
        "nothing is normalised: LN comes before the attention and before the MLP": ((x := z + attention(z)) + mlp(x)),
        "the MLP's input is not normalised: z' = MLP(LN y) + y": y + mlp(y),
        "the attention's input is not normalised: y = MSA(LN z) + z": (x := z + attention(z)) + mlp(n2(x)),
        "the residual carries the normalised tokens: add z itself, not LN z": (n2(normed) + mlp(n2(normed))),
        "the attention's residual carries the normalised tokens: add z itself, not LN z": normed + mlp(n2(normed)),
        "the MLP's residual carries the normalised tokens: add y itself, not LN y": n2(y) + mlp(n2(y)),
        "attention and MLP both start from z: the MLP must see y, the result of the attention step": y + mlp(n2(z)),
        "the MLP's residual adds z, so the attention's result is lost: z' = MLP(LN y) + y": z + mlp(n2(y)),
        "the MLP comes before the attention: first the tokens exchange, then each computes": (
            mlp_first + attention(n1(mlp_first))
        ),
        "only the attention step is there: the MLP step is missing": y,
        "only the MLP step is there: the attention step is missing": mlp_first,
        "the residual is subtracted, not added": y - mlp(n2(y)),
        "z is added twice: the residual of the MLP step is y alone": y + mlp(n2(y)) + z,
        "one more LayerNorm at the end: the residual stream leaves the block as it is, and the head normalises it": n2(
            y + mlp(n2(y))
        ),
        BATCH_TRAP: ((x := z + attention(n1(z).transpose(0, 1)).transpose(0, 1)) + mlp(n2(x))),
    }
    close(found, y + mlp(n2(y)), mistakes, what="the block's output")


# ---- 05.3


@exercise
def check_classifier(ClassifierHead: Callable) -> None:
    """05.3: ClassifierHead(dim, classes, pool) maps tokens [B, N, D] to logits [B, K]."""
    for pool in ("cls", "mean"):
        head = built_module(ClassifierHead, DIM, CLASSES, pool)
        check_norm(part_of(head, "norm"), "norm", DIM)
        linear = part_of(head, "linear")
        if not isinstance(linear, nn.Linear) or (linear.in_features, linear.out_features) != (DIM, CLASSES):
            raise CheckFailed(
                f"`linear` must be nn.Linear(dim, classes); with dim={DIM} and classes={CLASSES} it is {linear}"
            )
        if linear.bias is None:
            raise CheckFailed("`linear` has no bias: leave nn.Linear as it comes, as published weights have one")
        fill_large(head)
        for z in (drawn(3, 6, DIM, seed=2), drawn(1, 4, DIM, seed=3)):
            with torch.no_grad():
                axis = "features are the last axis: z[:, 0] is the first token of each clip, z.mean(dim=1) their mean"
                _compare_head(call_with_hints({"multiplied": axis}, head.forward, z), z, head.norm, linear, pool)
        check_train_mode(head, z)
        check_double(head, z)
        check_reached(head, z)
    passed("05.3", "one vector per clip, from the cls token or from all tokens, and logits from it.")


def _compare_head(found, z, norm, linear, pool):
    first, mean = norm(z)[:, 0], norm(z).mean(dim=1)  # [B, D]
    right, other = (first, mean) if pool == "cls" else (mean, first)
    logits = linear(right)
    close(
        found,
        logits,
        {
            f'pool="{pool}", but the head reads '
            + ("the mean of all tokens" if pool == "cls" else "the first token"): linear(other),
            "only one clip is read: z[:, 0] is the first token of each clip, z[0] the first clip": linear(norm(z)[0]),
            "the last token is read: the cls token comes first, at index 0": linear(norm(z)[:, -1]),
            "LayerNorm is missing: nothing has normalised the residual stream so far": linear(
                z[:, 0] if pool == "cls" else z.mean(dim=1)
            ),
            "the mean is taken first and normalised afterwards: normalise every token, then take the mean": linear(
                norm(z.mean(dim=1))
            ),
            "a softmax follows: F.cross_entropy takes logits and applies it itself": logits.softmax(dim=-1),
            "a log_softmax follows: F.cross_entropy takes logits and applies it itself": logits.log_softmax(dim=-1),
            "these are logits for every token: take one vector per clip": linear(norm(z)),
            "the tokens are added up: take their mean": linear(norm(z).sum(dim=1)),
            "the largest value over the tokens is taken: take their mean": linear(norm(z).amax(dim=1)),
            "the mean leaves out the first token: there is no cls token here, every token is one of the clip": linear(
                norm(z)[:, 1:].mean(dim=1)
            ),
            "the mean runs over the batch: take it over the tokens, dim=1": linear(norm(z).mean(dim=0)),
            "the linear map is missing: the head returns the vector it read": right,
            "the tokens' axis is still there: logits are [B, K]": logits[:, None],
        },
        what=f'the logits of ClassifierHead(…, pool="{pool}")',
    )


# ---- 05.4


@exercise
def check_model1(Model1: Callable) -> None:
    """05.4: Model1(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim, pool) maps clips to logits, as the
    package's model with the same weights does."""
    for pool in ("cls", "mean"):
        model = built_module(Model1, CLIP, TUBELET, CLASSES, DIM, DEPTH, HEADS, MLP_DIM, pool)
        _check_parts(model, pool)
        package = in_the_package(model, drawn(1, *CLIP))
        fill_large(model)
        for b in (4, 1):
            clips = drawn(b, *CLIP, seed=b).sigmoid()  # in [0, 1]
            found = call_with_hints(
                {"number of dimensions": ONE_SEQUENCE, TIMES_LEFT: ONE_SEQUENCE}, model.forward, clips
            )
            with torch.no_grad():
                _compare_model(found, model, clips)
        check_train_mode(model, clips)
        package.load_state_dict(named_as_package(model, CLIP))
        with torch.no_grad():
            other = {f'pool="{pool}", but the head reads {OTHER_POOL[pool]}: hand on `pool`': _other_pool(model, clips)}
            close(found, package(clips), other, what="the logits, compared with the package's,", tolerance=1e-4)
        check_double(model, clips)
        check_reached(model, clips, package)
    _check_without_numbers(Model1)
    _check_defaults(Model1)
    passed("05.4", "Model 1, with cls token or mean, gives the package's logits with the same weights.")


ONE_SEQUENCE = f'put the tokens of all times into one sequence first: rearrange(…, "{TO_ONE_SEQUENCE}")'
TIMES_LEFT = f"tensor a ({GRID[1] * GRID[2]})"  # what torch says where time still has an axis of its own
OTHER_POOL = {"cls": "the mean of all tokens", "mean": "the first token"}


def _other_pool(model, clips):
    """The logits of a model whose head reads what the other kind of pooling reads."""
    z = _front(rearrange(model.embedding(clips), TO_ONE_SEQUENCE), model.cls) + model.positions
    for block in model.blocks:
        z = block(z)
    z = model.head.norm(z)
    return model.head.linear(z[:, 0] if model.cls is None else z.mean(dim=1))


def _check_without_numbers(Model1):
    """A model can be built where tensors have shapes and no numbers, as the notebook does to count parameters."""
    try:
        with torch.device("meta"):
            Model1(CLIP, TUBELET, CLASSES, DIM, 1, HEADS, MLP_DIM, "cls")
    except Exception as error:
        raise CheckFailed(
            "the model is right, but its __init__ computes with tensors where whole numbers are enough, so it cannot "
            f"be built on the meta device, as the notebook does later ({error}): compute N in plain Python, "
            "math.prod(grid)"
        ) from None


def _check_parts(model, pool):
    for name in ("embedding", "head"):
        part_of(model, name)
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, (list, tuple)):
        raise CheckFailed(
            "`blocks` is a plain list: the model does not see the parameters in it, so the optimiser and "
            "state_dict() would miss them. Use nn.ModuleList"
        )
    part_of(model, "blocks")
    if len(blocks) != DEPTH:
        raise CheckFailed(f"with depth={DEPTH} there are {len(blocks)} blocks")
    if len({id(block) for block in blocks}) != DEPTH:
        raise CheckFailed(
            f"all {DEPTH} blocks are one and the same object ([block] * depth): make a new EncoderBlock for each"
        )
    tokens = GRID[0] * GRID[1] * GRID[2]
    for name, shape in (("positions", [1, tokens + (pool == "cls"), DIM]), ("cls", [1, 1, DIM])):
        value = getattr(model, name, "missing")
        if name == "cls" and pool == "mean":
            if value is None:
                continue
            raise CheckFailed('with pool="mean" there is no cls token: set self.cls = None if pool is not "cls"')
        if isinstance(value, str):
            raise CheckFailed(f"the model has no `{name}`: give it self.{name} = nn.Parameter(…) of shape {shape}")
        if not isinstance(value, nn.Parameter):
            raise CheckFailed(
                f"`{name}` is {kind(value)}, not an nn.Parameter: the optimiser would never see it, so it would "
                "keep its first value"
            )
        if list(value.shape) != shape:
            more = " (one for each token, and one for the cls token)" if pool == "cls" and name == "positions" else ""
            raise CheckFailed(
                f"with a grid of {GRID} tubelets `{name}` has shape {list(value.shape)}, not {shape}{more}"
            )
    if model.cls is not None and model.cls.any():
        raise CheckFailed("the cls token doesn't start at zero: nn.Parameter(torch.zeros(1, 1, dim))")
    spread, mean = model.positions.detach().std().item(), model.positions.detach().mean().item()
    if not 0.4 < spread < 0.6 or abs(mean) > 0.15:
        raise CheckFailed(
            f"the positions start with a standard deviation of {spread:.2g} and a mean of {mean:.2f}: start them at "
            "0.5 * torch.randn(…), different for every token"
        )
    for block in blocks:
        _heads_are(block.attention, HEADS)
        _mlp_dim_is(block, MLP_DIM)
    widths = {"the embedding": as_convolution(model.embedding, CLIP).out_channels}
    widths |= {f"block {k}": block.norm_mlp.normalized_shape[0] for k, block in enumerate(blocks)}
    widths |= {"the head": part_of(model.head, "norm").normalized_shape[0]}
    for name, width in widths.items():
        if width != DIM:
            raise CheckFailed(f"with dim={DIM}, {name} has dim {width}: hand on what Model1 is given")
    if (classes := part_of(model.head, "linear").out_features) != CLASSES:
        raise CheckFailed(f"with classes={CLASSES}, the head has {classes} classes: hand on what Model1 is given")
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise CheckFailed(f"{frozen[0]} has requires_grad=False: it would never learn")


def _heads_are(attention, heads):
    if (found := heads_of(attention)) != heads:
        raise CheckFailed(f"with heads={heads} the blocks have {found} heads: hand on what Model1 is given")


def _mlp_dim_is(block, mlp_dim):
    sizes = {part.out_features for part in block.mlp.modules() if isinstance(part, nn.Linear)}
    if mlp_dim not in sizes:
        raise CheckFailed(
            f"with mlp_dim={mlp_dim} the MLPs have the widths {sorted(sizes)}: hand on what Model1 is given"
        )


def _check_defaults(Model1):
    """dim=32, depth=2, heads=4, mlp_dim=64, pool="mean", as the task's first line says."""
    model = built_module(Model1, (1, 4, 8, 8), (1, 8, 2), 2)
    found = (model.positions.shape[-1], len(model.blocks), "mean" if model.cls is None else "cls")
    if found != (32, 2, "mean"):
        raise CheckFailed(
            f"without further arguments the model has dim, depth and pool {found}, expected (32, 2, 'mean'): leave the "
            "defaults in the first line as they were"
        )
    _heads_are(model.blocks[0].attention, 4)
    _mlp_dim_is(model.blocks[0], 64)


def _compare_model(found, model, clips):
    grid = model.embedding(clips)  # [B, nt, S, D]

    def run(z, *, front=True, positions=model.positions, blocks=model.blocks):
        if model_cls is not None and front:
            z = torch.cat((model_cls.expand(len(z), -1, -1), z), dim=1)
        z = z + positions
        for block in blocks:
            z = block(z)
        return model.head(z)

    def every_block(z):
        if model_cls is not None:
            z = torch.cat((model_cls.expand(len(z), -1, -1), z), dim=1)
        for block in model.blocks:
            z = block(z + model.positions)
        return model.head(z)

    def residual_around(z):
        z = _front(z, model_cls) + model.positions
        for block in model.blocks:
            z = z + block(z)
        return model.head(z)

    def twice_normed(z):
        norm, *_ = [part for part in model.children() if isinstance(part, nn.LayerNorm)] + [model.head.norm]
        return model.head(norm(stack(_front(z, model_cls) + model.positions)))

    def cls_last(z):
        return run(torch.cat((z, model_cls.expand(len(z), -1, -1)), dim=1), front=False)

    def cls_without_position(z):
        z = torch.cat((model_cls.expand(len(z), -1, -1), z + model.positions[:, 1:]), dim=1)
        return run(z, front=False, positions=0)

    def cls_after_the_positions(z):
        z = torch.cat((model_cls.expand(len(z), -1, -1), z + model.positions[:, :-1]), dim=1)
        return run(z, front=False, positions=0)

    def stack(z):
        for block in model.blocks:
            z = block(z)
        return z

    model_cls = getattr(model, "cls", None)
    sequence = rearrange(grid, TO_ONE_SEQUENCE)
    first, *_ = model.blocks
    logits = run(sequence)
    close(
        found,
        logits,
        {
            "the positions are not used: z + positions, after the cls token and before the blocks": lambda: run(
                sequence, positions=0
            ),
            "the positions are added after the blocks: add them before, once": lambda: model.head(
                stack(_front(sequence, model_cls)) + model.positions
            ),
            "the tokens are in another order, through time first: use the order of the package and of published "
            f'weights, "{TO_ONE_SEQUENCE}"': lambda: run(rearrange(grid, "b nt s d -> b (s nt) d")),
            "the cls token comes last: the head looks for it at index 0": lambda: cls_last(sequence),
            "the cls token got no position: it has one too, the first": lambda: cls_without_position(sequence),
            "the cls token is put in front after the positions were added: first the cls token, then z + positions": (
                lambda: cls_after_the_positions(sequence)
            ),
            "only the first block is used: go through all of them": lambda: run(sequence, blocks=[first]),
            "no block is used: z = block(z) for each of them": lambda: run(sequence, blocks=[]),
            "only the last block's result counts, since each starts from the same z: z = block(z)": lambda: run(
                sequence, blocks=[model.blocks[-1]]
            ),
            "the first block is applied again and again: use each block once": lambda: run(
                sequence, blocks=[first] * len(model.blocks)
            ),
            "the blocks run in reverse order": lambda: run(sequence, blocks=reversed(list(model.blocks))),
            "the positions are added again before every block: they are added once": lambda: every_block(sequence),
            "the positions are subtracted": lambda: run(sequence, positions=-model.positions),
            "the positions are multiplied with the tokens: they are added": lambda: run(
                _front(sequence, model_cls) * model.positions, front=False, positions=0
            ),
            "the input of each block is added to its result: the residuals are inside the block, so z = block(z)": (
                lambda: residual_around(sequence)
            ),
            "LayerNorm comes twice: the head normalises already, so leave it out before the head": lambda: twice_normed(
                sequence
            ),
            "a softmax follows the head: F.cross_entropy takes logits and applies it itself": lambda: logits.softmax(
                dim=-1
            ),
            "the clips of a batch attend to each other: the batch must come first": lambda: run(
                sequence.transpose(0, 1).reshape(sequence.shape)
            ),
        },
        what="the logits",
    )


def _front(z, cls):
    return z if cls is None else torch.cat((cls.expand(len(z), -1, -1), z), dim=1)


# ---- 05.5


@exercise
def check_agree(agree: Callable) -> None:
    """05.5: agree(first, second, clips) -> whether two models with the same names of parameters are the same function.
    It is tried on right models, written in different ways, and on models with one fault each."""
    clips = drawn(3, 1, 4, 4, 6, seed=1).sigmoid()
    for why, rewrite in RIGHT.items():
        for seed in range(3):
            if not _says(agree, _small(2 * seed), rewrite(_small(2 * seed + 1)), clips):
                raise CheckFailed(f"your test says False about {why}")
    for fault, (broken, hint) in FAULTS.items():
        for seed in range(3):
            if _says(agree, _small(2 * seed), broken(_small(2 * seed + 1)), clips):
                raise CheckFailed(f"your test says True about a right model and one with this fault: {fault}. {hint}")
    for seed in range(3):
        if _says(agree, _small(2 * seed), _with_head(_RolledHead)(_small(2 * seed + 1)), clips):
            raise CheckFailed(
                "your test says True about a right model and one whose logits belong to other classes: compare logit "
                "with logit, not their mean or sum"
            )
    passed("05.5", f"your test sees {len(FAULTS)} faults out of {len(FAULTS)}, and raises no false alarm.")


def _says(agree, first, second, clips):
    """What the function says about two models in train mode; `call` sees whether it leaves them as they were."""
    try:
        return flag(call(agree, first.train(), second.train(), clips), "the answer")
    except CheckFailed as failed:
        theirs = r"changes the (?:argument `)?(\w+)`? that it was given: its weights have changed.*"
        raise CheckFailed(
            re.sub(theirs, r"changes the weights of `\1`: work on a copy (copy.deepcopy)", str(failed))
        ) from None


def _small(seed):
    """A Model 1 with fresh weights, the same for a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return Model1((1, 4, 4, 6), (2, 2, 3), 3, dim=32, depth=2, heads=4, mlp_dim=64, pool="cls")


class _DropoutHead(ClassifierHead):
    def forward(self, z):
        return super().forward(F.dropout(z, 0.5, self.training))


class _OtherOrderHead(ClassifierHead):
    def forward(self, z):
        spread = (z.var(dim=-1, correction=0, keepdim=True) + self.norm.eps).sqrt()
        z = (z / spread - z.mean(dim=-1, keepdim=True) / spread) * self.norm.weight + self.norm.bias
        return (z @ self.linear.weight.T + self.linear.bias)[:, 0]


class _RolledHead(ClassifierHead):
    def forward(self, z):
        return super().forward(z).roll(1, dims=1)


class _UnnormalisedHead(ClassifierHead):
    def forward(self, z):
        return self.linear(z[:, 0])


class _SoftmaxHead(ClassifierHead):
    def forward(self, z):
        return super().forward(z).softmax(dim=-1)


class _BatchBlock(EncoderBlock):
    def forward(self, z):
        together = self.norm_attention(z).flatten(0, 1)[None]  # [1, B·N, D]
        y = z + self.attention(together).view(z.shape)
        return y + self.mlp(self.norm_mlp(y))


class _FirstClipClsModel1(Model1):
    def forward(self, clips):
        z = prepend_cls(rearrange(self.embedding(clips), TO_ONE_SEQUENCE), self.cls)
        first = torch.arange(len(z)) == 0
        z = torch.cat((z[:, :1] * first[:, None, None], z[:, 1:]), dim=1) + self.positions
        for block in self.blocks:
            z = block(z)
        return self.head(z)


class _UnscaledNorm(nn.LayerNorm):
    def forward(self, z):
        return F.layer_norm(z, self.normalized_shape, eps=self.eps)


class _EmptyClsModel1(Model1):
    def forward(self, clips):
        z = prepend_cls(rearrange(self.embedding(clips), TO_ONE_SEQUENCE), torch.zeros_like(self.cls))
        z = z + self.positions
        for block in self.blocks:
            z = block(z)
        return self.head(z)


class _ShiftedModel1(Model1):
    def forward(self, clips):
        z = prepend_cls(rearrange(self.embedding(clips), TO_ONE_SEQUENCE), self.cls)
        z = z + self.positions.roll(1, dims=1)
        for block in self.blocks:
            z = block(z)
        return self.head(z)


def _with_head(kind):
    def change(model):
        model.head.__class__ = kind  # the same parameters under the same names, used in another way
        return model

    return change


def _unscaled(model):
    model.blocks[1].norm_mlp.__class__ = _UnscaledNorm
    return model


def _with_relu(model):
    model.blocks[1].mlp[1] = nn.ReLU()
    return model


def _with_batch_block(model):
    model.blocks[0].__class__ = _BatchBlock
    return model


def _as_class(kind):
    def change(model):
        model.__class__ = kind
        return model

    return change


RIGHT = {
    "two fresh models of one class. Their weights differ: copy them from one to the other first": lambda model: model,
    "a model and the same one with dropout. Compare in eval mode, where dropout does nothing": _with_head(_DropoutHead),
    "two right models of which one computes LayerNorm in another order, so that their logits differ in the last "
    "digits. Allow for that: torch.allclose(…, atol=1e-4)": _with_head(_OtherOrderHead),
}
FAULTS = {
    "the last LayerNorm is missing": (
        _with_head(_UnnormalisedHead),
        "Compare the logits of all clips, with the same weights in both models.",
    ),
    "a softmax at the end": (
        _with_head(_SoftmaxHead),
        "The predicted class is the same, the logits are not: compare all of them.",
    ),
    "positions shifted by one token": (
        _as_class(_ShiftedModel1),
        "Compare the logits themselves, with a tolerance of about 1e-4, and use large random weights.",
    ),
    "the clips of a batch attend to each other": (
        _with_batch_block,
        "With small weights it hardly shows: fill all weights with large random numbers, and compare on all clips that "
        "are given, as they are. A single clip has no other clip to attend to, and equal clips lose nothing by it.",
    ),
    "the cls token is zeros instead of the parameter": (
        _as_class(_EmptyClsModel1),
        "A fresh cls token is zero, so the fault does not show: fill all weights with large random numbers.",
    ),
    "a LayerNorm without its scale and shift": (
        _unscaled,
        "A fresh LayerNorm has scale 1 and shift 0, so the fault does not show: fill all weights with large random "
        "numbers.",
    ),
    "a ReLU in place of GELU": (
        _with_relu,
        "The logits differ by a few tenths or less: compare them with a tolerance of about 1e-4.",
    ),
    "only the first clip of a batch has the cls token, the others have zeros": (
        _as_class(_FirstClipClsModel1),
        "Some logits are right: the models agree only if all logits of all clips do.",
    ),
}


# ---- 05.6


@exercise
def check_learn(learn: Callable) -> None:
    """05.6: learn(model, batches) trains the model on pairs of clips and labels and returns the loss of each step.
    It is compared with runs that make one mistake each."""
    batches, runs, model = _batches(), _runs(), _small(1).train()
    try:
        losses = call(learn, model, batches, may_change=(0,))
    except CheckFailed as failed:
        if "inplace operation" in str(failed):
            raise CheckFailed(
                "optimiser.step() changes the weights before loss.backward() has used them: call backward first"
            ) from None
        raise
    if not isinstance(losses, (list, tuple)) or len(losses) != len(batches):
        raise CheckFailed(f"for {len(batches)} batches learn returned {_how_many(losses)}")
    if any(isinstance(loss, torch.Tensor) and loss.requires_grad for loss in losses):
        raise CheckFailed(
            "the losses are tensors that keep the whole computation of their step in memory: append loss.item()"
        )
    if any(isinstance(loss, torch.Tensor) for loss in losses):
        raise CheckFailed("the losses are tensors, expected Python numbers: append loss.item()")
    if not all(isinstance(loss, Real) for loss in losses):
        raise CheckFailed(
            f"the losses are of type {type(losses[0]).__name__}, expected Python numbers: append loss.item()"
        )
    if not model.training:
        raise CheckFailed("learn leaves the model in eval mode, and training runs in train mode: leave eval() out")
    (expected, weights), *_ = runs.values()
    found = torch.tensor([float(loss) for loss in losses])
    mistakes = {message: losses for message, (losses, _) in runs.items() if message}
    close(found, expected, mistakes, what="the list of losses", tolerance=1e-3)
    close(
        torch.cat([parameter.detach().flatten() for parameter in model.parameters()]),
        weights,
        {"the last batch was not learned: optimiser.step() comes in every step": runs[NO_LAST_STEP][1]},
        what="the trained weights",
        tolerance=1e-3,
    )
    passed("05.6", "the losses and the trained weights are those of a correct training loop.")


def _how_many(losses):
    """What learn returned in place of one loss for each batch, and what to do."""
    if not isinstance(losses, (list, tuple)):
        return f"{kind(losses)}: append one loss in each step, and return the list"
    if len(losses) == 1:
        return "1 number: append one loss in each step, and let `return` come after the loop, not inside it"
    return f"{len(losses)} numbers: append one loss in each step"


NO_LAST_STEP = "the last step is missing"
LEARN_MISTAKES = {
    "the model does not learn, its losses are those of the weights it started with: each step needs loss.backward() "
    "and, after it, optimiser.step(). If zero_grad() comes between the two, the gradients are emptied before step() "
    "uses them": {"steps": 0},
    "gradients add up from step to step: call optimiser.zero_grad() before loss.backward()": {"zero": False},
    "a softmax comes before F.cross_entropy, which applies it itself: give it the logits": {"softmax": True},
    "the loss is added up over the clips of a batch: take their mean, as F.cross_entropy does by itself": {
        "reduction": "sum"
    },
    "optimiser.step() comes twice for each batch: one step is enough": {"steps": 2},
    NO_LAST_STEP: {"last": False},
    "these are the losses after each step: append the loss that was computed before it": {"after": True},
}


def _batches():
    generator = torch.Generator().manual_seed(0)
    return [(drawn(6, 1, 4, 4, 6, seed=k).sigmoid(), torch.randint(3, (6,), generator=generator)) for k in range(5)]


@cache
def _runs():
    """{"": the right run, message: the run with this mistake}; always the same, so trained once."""
    changes = {"": {}} | LEARN_MISTAKES
    return {message: _train(_small(1), _batches(), **change) for message, change in changes.items()}


def _train(model, batches, steps=1, zero=True, softmax=False, reduction="mean", last=True, after=False):
    """The losses of a training run and the weights at its end, flat; with a mistake in it where that is asked for."""
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for k, (clips, labels) in enumerate(batches):
        logits = model.train()(clips)
        loss = F.cross_entropy(logits.softmax(dim=-1) if softmax else logits, labels, reduction=reduction)
        if zero:
            optimiser.zero_grad()
        loss.backward()
        for _ in range(steps if last or k < len(batches) - 1 else 0):
            optimiser.step()
        losses.append((F.cross_entropy(model(clips), labels) if after else loss).item())
    return torch.tensor(losses), torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# ---- copying weights


@torch.no_grad()
def torch_layer(block: nn.Module, heads: int = HEADS) -> nn.TransformerEncoderLayer:
    """torch's pre-norm layer in eval mode, with the weights of an encoder block."""
    widen, narrow = linears_of(block.mlp, block.norm_mlp.normalized_shape[0])
    layer = nn.TransformerEncoderLayer(
        widen.in_features, heads, widen.out_features, 0.0, "gelu", block.norm_mlp.eps, batch_first=True, norm_first=True
    )
    attention = layer.self_attn
    theirs = (attention.in_proj_weight, attention.in_proj_bias, attention.out_proj.weight, attention.out_proj.bias)
    for mine, other in zip(projections(block.attention), theirs):
        other.copy_(mine)
    for mine, other in (
        (widen, layer.linear1),
        (narrow, layer.linear2),
        (block.norm_attention, layer.norm1),
        (block.norm_mlp, layer.norm2),
    ):
        other.load_state_dict(mine.state_dict())
    return layer.eval()


def _other_heads(block, z):
    """What the block would give with a usual number of heads that is not the one it was asked for."""
    for heads in (1, 2, 4, 6, 12):
        found = torch_layer(block, heads)(z)
        if torch.allclose(found, block(z), rtol=1e-3, atol=1e-3):
            return found
    return torch.full_like(z, torch.nan)


def in_the_package(model: nn.Module, clips: torch.Tensor | None = None) -> nn.Module:
    """The package's Model 1 with the weights of yours, in eval mode: for `attention_maps` and everything else.

    clips: some that fit, [B, C, T, H, W], needed where your embedding keeps E in something other than an nn.Conv3d.
    """
    clip_shape = None if clips is None else clips.shape[1:]
    convolution = as_convolution(model.embedding, clip_shape)
    block = model.blocks[0]
    package = build_model(
        "spacetime",
        clip_shape=(
            convolution.in_channels,
            *(int(n) * p for n, p in zip(model.embedding.grid, convolution.kernel_size)),
        ),
        num_classes=model.head.linear.out_features,
        tubelet=tuple(convolution.kernel_size),
        dim=convolution.out_channels,
        depth=len(model.blocks),
        heads=heads_of(block.attention),
        mlp_dim=linears_of(block.mlp, convolution.out_channels)[0].out_features,
        pool="mean" if model.cls is None else "cls",
    )
    package.load_state_dict(named_as_package(model, clip_shape))
    return package.eval()


# ---- parity, one call each


def same_as_torch(EncoderBlock: Callable) -> None:
    """Compares a block with torch's pre-norm layer that has the same weights, at the notebook's sizes."""
    block = EncoderBlock(32, 4, 64).eval()
    fill_large(block)
    z = drawn(2, 17, 32)
    with torch.no_grad():
        say_difference("EncoderBlock", "torch's nn.TransformerEncoderLayer", block(z), torch_layer(block, 4)(z))


def same_as_package(Model1: Callable) -> None:
    """Compares a Model 1 with the package's that has the same weights, on clips of 28³ voxels."""
    for pool in ("cls", "mean"):
        model = Model1((1, 28, 28, 28), (7, 7, 7), 11, dim=64, depth=3, heads=4, mlp_dim=128, pool=pool).eval()
        fill_large(model, std=0.2)
        clips = drawn(2, 1, 28, 28, 28).sigmoid()
        package = in_the_package(model, clips)
        with torch.no_grad():
            say_difference(f'Model1(pool="{pool}")', "the package's", model(clips), package(clips))


def same_as_transformers(Model1: Callable) -> None:
    """Compares a Model 1 with VivitForVideoClassification of the library transformers, where it is installed."""
    if not importlib.util.find_spec("transformers"):
        print("transformers is not installed: pip install transformers, and run this cell again")
        return
    from transformers import VivitConfig, VivitForVideoClassification

    from ...pretrained import load_pretrained

    model = Model1((1, 28, 28, 28), (7, 7, 7), 11, dim=64, depth=3, heads=4, mlp_dim=128, pool="cls").eval()
    sizes = {"image_size": 28, "num_frames": 28, "tubelet_size": [7, 7, 7], "num_channels": 1, "num_labels": 11}
    sizes |= {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
    theirs = VivitForVideoClassification(VivitConfig(**sizes, hidden_act="gelu")).eval()
    fill_large(theirs, std=0.2)
    clips = drawn(2, 1, 28, 28, 28).sigmoid()
    package = in_the_package(model, clips)
    load_pretrained(package, theirs.state_dict())
    _load_from_the_package(model, package, clips.shape[1:])
    with torch.no_grad():
        logits = theirs(pixel_values=clips.transpose(1, 2)).logits  # their clips are [B, T, C, H, W]
        say_difference("Model1", "transformers' VivitForVideoClassification", model(clips), logits)


@torch.no_grad()
def _load_from_the_package(model, package, clip_shape):
    """Copies the package's weights into a reader's Model 1, in place."""
    weights = package.state_dict()
    for name, mine in named_as_package(model, clip_shape).items():
        mine.copy_(weights[name])  # detached, but the same memory; a [3·D, D] made of three maps is not
    for block, theirs in zip(model.blocks, package.encoder.blocks):
        linears = [part for part in block.attention.modules() if isinstance(part, nn.Linear)]
        if len(linears) == 4:
            for k, linear in enumerate(linears[:3]):
                linear.weight.copy_(theirs.attention.qkv.weight.chunk(3)[k])
                linear.bias.copy_(theirs.attention.qkv.bias.chunk(3)[k])
