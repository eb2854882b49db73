"""Checks of chapter 10: filters in tubelets, positions repeated and resized, the surgery of Model 1 and of Model 3's
block, the test of a loader, and a normalisation folded into filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn

from ...models import build_model
from ...vivit import Block, FactorisedSelfAttentionBlock, ViViTConfig
from ..ready import ch10 as finished
from . import CheckFailed, call, close, drawn, examine, exercise, flag, kind, pair, passed
from .calling import call_with_hints

# These functions convert stored weights, so no gradient has to pass, and numpy will do, which has no bfloat16
OF_WEIGHTS = {"gradients": False, "dtypes": (torch.float64,)}

# ---- 10.1


@exercise
def check_tubelet_filters(average_frames: Callable, central_frame: Callable) -> None:
    """10.1: two functions from image filters [D, C, ph, pw] and t to tubelet filters [D, C, pt, ph, pw]."""
    for check, function in ((_check_average_frames, average_frames), (_check_central_frame, central_frame)):
        try:
            check(function)
        except CheckFailed as failed:
            raise CheckFailed(f"{check.__name__.removeprefix('_check_')}: {failed}") from None
    passed("10.1", "on a still clip both give the image filter's answer.")


def _check_average_frames(average_frames):
    examine(
        average_frames,
        finished.average_frames,
        (drawn(4, 3, 2, 5), 6),
        (drawn(5, 5, 5, 5), 5),  # a shape that tells no axis apart
        (drawn(2, 1, 4, 3), 3),
        (drawn(1, 2, 3, 2), 1),
        mistakes={
            "every frame holds the whole filter, so a still clip is answered t times as loudly: divide by t": (
                lambda w, t: repeat(w, "d c h w -> d c t h w", t=t)
            ),
            "this is the central frame, which comes next: here every frame holds a t-th of the filter": (
                lambda w, t: on_frame(w, t, t // 2)
            ),
            "only the first frame holds anything: here every frame holds a t-th of the filter": (
                lambda w, t: on_frame(w / t, t, 0)
            ),
            "the frames of a tubelet add up to the filter times t: divide by t once": lambda w, t: repeat(
                w * t, "d c h w -> d c t h w", t=t
            ),
            "7 is written into the code: divide by t": lambda w, t: repeat(w / 7, "d c h w -> d c t h w", t=t),
            "divided by t twice": lambda w, t: repeat(w / t**2, "d c h w -> d c t h w", t=t),
            "divided by the square root of t, but t frames of a still clip add up: divide by t": lambda w, t: repeat(
                w / t**0.5, "d c h w -> d c t h w", t=t
            ),
            "the new axis is time and stands third, [D, C, pt, ph, pw]: yours stands last": lambda w, t: repeat(
                w / t, "d c h w -> d c h w t", t=t
            ),
            "the new axis is time and stands third, [D, C, pt, ph, pw]: yours stands before the channels": (
                lambda w, t: repeat(w / t, "d c h w -> d t c h w", t=t)
            ),
            "the new axis is time and stands third, [D, C, pt, ph, pw]: yours stands first": lambda w, t: repeat(
                w / t, "d c h w -> t d c h w", t=t
            ),
            "the frames were joined with the channels: the result has five axes, [D, C, pt, ph, pw]": lambda w, t: (
                repeat(w / t, "d c h w -> d (c t) h w", t=t)
            ),
            "this is the average over the filter's own pixels: keep its pattern, and spread it over the frames": (
                lambda w, t: (w.mean(dim=(2, 3), keepdim=True) / t)[:, :, None].expand(-1, -1, t, *w.shape[2:])
            ),
        },
        errors={"expanded size": "time is a new axis, the third: filters[:, :, None]"},
        what="the tubelet's filters",
        **OF_WEIGHTS,
    )


def _check_central_frame(central_frame):
    generator = torch.Generator().manual_seed(0)
    for t, size in ((3, (4, 5)), (4, (3, 5)), (1, (2, 3)), (5, (5, 5))):  # the last: a shape that tells no axis apart
        filters = torch.randn(6, 2, *size, generator=generator)
        hints = {"expanded size": "of [D, C, pt, ph, pw], time is axis 2, so write to [:, :, t // 2]"}
        found = call_with_hints(hints, central_frame, filters, t)
        close(
            found, on_frame(filters, t, t // 2), mistakes_of_central_frame(filters, t), what=f"the result for t = {t}"
        )
    cases = (drawn(4, 3, 2, 5), 6), (drawn(1, 1, 3, 1), 9)
    examine(central_frame, finished.central_frame, *cases, what="the result", **OF_WEIGHTS)


def on_frame(filters: torch.Tensor, t: int, frame: int) -> torch.Tensor:
    return torch.stack([filters if i == frame else torch.zeros_like(filters) for i in range(t)], dim=2)


def mistakes_of_central_frame(filters: torch.Tensor, t: int) -> dict[str, Any]:
    everywhere = torch.stack([filters] * t, dim=2)
    column = torch.zeros_like(everywhere)
    column[..., filters.shape[-1] // 2] = everywhere[..., filters.shape[-1] // 2]
    row = torch.zeros_like(everywhere)
    row[..., filters.shape[-2] // 2, :] = everywhere[..., filters.shape[-2] // 2, :]
    central = on_frame(filters, t, t // 2)
    return {
        "the filter stands on every frame: a repeated image would be answered t times as loudly. Here all frames "
        "but one are zero": everywhere,
        "this is filter inflation, a t-th of the filter on every frame: here all frames but one are zero": everywhere
        / t,
        "the zeros lie along the width, not along time: of [D, C, pt, ph, pw], time is axis 2, so "
        "write to [:, :, t // 2]": column,
        "the zeros lie along the height, not along time: of [D, C, pt, ph, pw], time is axis 2": row,
        "the filter was divided by t: on one frame alone it needs all its strength": central / t,
        "of an even number of frames the central one is ⌊t/2⌋, counted from 0: t // 2, not (t - 1) // 2": on_frame(
            filters, t, (t - 1) // 2
        ),
        "the filter stands on the first frame: put it on frame t // 2": on_frame(filters, t, 0),
        "the filter stands on the last frame: put it on frame t // 2": on_frame(filters, t, t - 1),
        "the new axis is time and stands third, [D, C, pt, ph, pw]: yours stands behind the height": central.transpose(
            2, 3
        ),
        "the new axis is time and stands third, [D, C, pt, ph, pw]: yours stands last": central.movedim(2, -1),
        "the new axis is time and stands third, [D, C, pt, ph, pw]: yours is before the channels": central.transpose(
            1, 2
        ),
    }


# ---- 10.2


@exercise
def check_repeat_positions(repeat_positions: Callable) -> None:
    """repeat_positions(positions [1, 1 + S, D] with the cls token's first, nt) -> [1, nt·S, D], tokens in order
    (nt s)."""
    generator = torch.Generator().manual_seed(1)
    for nt, s in ((3, 4), (4, 4), (1, 4), (2, 20)):
        positions = torch.randn(1, 1 + s, 6, generator=generator)
        hints = {"Size([0,": "positions[1:] cuts the batch axis: leave out positions[:, :1]"}
        found = call_with_hints(hints, repeat_positions, positions, nt)
        patches = positions[:, 1:]
        expected = torch.cat([patches] * nt, dim=1)
        close(
            found,
            expected,
            {
                "the copies of one place stand side by side, order (s nt): Model 1's tokens are "
                "ordered (nt s), all places "
                "of time 0 first. repeat_interleave gives the one, repeat(1, nt, 1) the other": repeat(
                    patches, "1 s d -> 1 (s t) d", t=nt
                ),
                "the cls token's position is still there, once in each copy: leave out "
                "positions[:, :1] first": torch.cat([positions] * nt, dim=1),
                "the cls token's position still stands in front: this model pools by mean and "
                "has no cls token": torch.cat([positions[:, :1], expected], dim=1),
                "the cls token's position was left out after the repetition, so the other copies still hold it: leave "
                "it out first": torch.cat([positions] * nt, dim=1)[:, 1:],
                "positions[1:] cuts the batch axis, of which nothing is left: leave out positions[:, :1]": (
                    lambda: positions[1:].repeat(1, nt, 1)
                ),
                "the last position was left out, not the first: the cls token stands in front": torch.cat(
                    [positions[:, :-1]] * nt, dim=1
                ),
                "the cls token was left out, but nothing repeated: each of the nt time indices "
                "needs all S positions": patches,
                "the positions were divided by nt: each token gets one of them, so nothing is shared": expected / nt,
                "this is the grid [1, T', S, D] that Models 3 and 4 want: Model 1 has one "
                "sequence, so merge the two axes": repeat(patches, "1 s d -> 1 t s d", t=nt),
                "repeated along the batch axis, which must stay 1: one set of positions serves all clips": repeat(
                    patches, "1 s d -> t s d", t=nt
                ),
                "the batch axis is lost: keep it, [1, nt·S, D]": expected[0],
                "interpolated along the sequence: its neighbours are places of one image, so "
                "this blurs space and knows "
                "nothing of time. Repeat": lambda: stretched(patches, nt),
                "interpolated along the sequence, and the cls token's position with it: leave "
                "that out, and repeat": lambda: stretched(positions, nt, s),
                "the axes were regrouped by a reshape, without being moved: a token's D numbers "
                "no longer belong together": lambda: (
                    rearrange(patches, "1 s d -> 1 d s").repeat(1, 1, nt).reshape(1, nt * s, -1)
                ),
            },
            what=f"the result for nt = {nt}, S = {s}",
        )
    cases = (drawn(1, 6, 3), 4), (drawn(1, 2, 5), 2), (drawn(1, 10, 1), 1)
    examine(repeat_positions, finished.repeat_positions, *cases, what="the result", **OF_WEIGHTS)
    passed("10.2", "every time index has the image's positions, in the order of Model 1's tokens.")


def stretched(positions: torch.Tensor, nt: int, s: int | None = None) -> torch.Tensor:
    tokens = nt * (s or positions.shape[1])
    return F.interpolate(positions.transpose(1, 2), size=tokens, mode="linear").transpose(1, 2)


# ---- 10.3


@exercise
def check_resize_grid(resize_grid: Callable) -> None:
    """10.3: resize_grid(positions [1, S, D], old (nh, nw), new (nh', nw')) -> [1, S', D]."""

    def interpolated(mode="bilinear", read="(h w)", write="(h w)", h=0, **options):
        def resize(positions, old, new):
            picture = rearrange(positions, f"1 {read} d -> 1 d h w", h=old[h])
            return rearrange(F.interpolate(picture, size=new, mode=mode, **options), f"1 d h w -> 1 {write} d")

        return resize

    def along_the_sequence(positions, old, new):
        stretched = F.interpolate(positions.transpose(1, 2), size=new[0] * new[1], mode="linear")
        return stretched.transpose(1, 2)

    def reshaped(positions, old, new):
        picture = positions.reshape(1, -1, *old)
        return F.interpolate(picture, size=new, mode="bilinear").reshape(1, new[0] * new[1], -1)

    def viewed(positions, old, new):
        picture = positions.reshape(1, -1, *old)
        return rearrange(F.interpolate(picture, size=new, mode="bilinear"), "1 d h w -> 1 (h w) d")

    def half_reshaped(positions, old, new):
        picture = rearrange(positions, "1 (h w) d -> 1 d h w", h=old[0])
        return F.interpolate(picture, size=new, mode="bilinear").reshape(1, new[0] * new[1], -1)

    examine(
        resize_grid,
        finished.resize_grid,
        (drawn(1, 10, 3), (5, 2), (3, 4)),
        (drawn(1, 6, 5), (2, 3), (5, 4)),
        (drawn(1, 6, 7), (3, 2), (3, 2)),
        (drawn(1, 9, 4), (3, 3), (7, 7)),
        (drawn(1, 4, 2), (1, 4), (2, 8)),
        mistakes={
            "the positions were interpolated along the sequence, across the ends of lines: make a picture of them "
            "first, [1, D, nh, nw]": along_the_sequence,
            "the grid was read column by column: tokens are numbered line by line, (nh nw)": interpolated(read="(w h)"),
            "the resized grid was read column by column: put it back as (nh nw)": interpolated(write="(w h)"),
            "both grids were read column by column: tokens are numbered line by line, (nh nw)": interpolated(
                read="(w h)", write="(w h)"
            ),
            "the height and the width of the old grid are exchanged: nh is old[0]": interpolated(h=1),
            "antialias=True smooths where a grid shrinks: leave it out": interpolated(antialias=True),
            "the picture was made by a view or reshape, which moves no axis: move D in front, with rearrange or "
            "transpose": viewed,
            "a reshape keeps the order in memory, so a vector's D numbers got mixed with those of other places: D has "
            "to be moved in front first. rearrange moves axes if you name them": reshaped,
            "resized well, but put back with a reshape: D has to be moved behind the places again": half_reshaped,
            "every new place copies the nearest old one (F.interpolate's default): use mode='bilinear'": interpolated(
                "nearest"
            ),
            "this is bicubic: the task asks for mode='bilinear'": interpolated("bicubic"),
            "align_corners=True stretches the outer patches' centres to the edge: leave align_corners away": (
                interpolated(align_corners=True)
            ),
            "the positions were repeated, not resized": lambda p, old, new: p.repeat(1, new[0] * new[1], 1)[
                :, : new[0] * new[1]
            ],
            "the height and the width of the new grid are exchanged": lambda p, old, new: finished.resize_grid(
                p, old, new[::-1]
            ),
            "every new place has the mean of all old ones": lambda p, old, new: p.mean(dim=1, keepdim=True).expand(
                -1, new[0] * new[1], -1
            ),
            "this is the picture [1, D, nh', nw']: turn it into a sequence again": lambda p, old, new: F.interpolate(
                rearrange(p, "1 (h w) d -> 1 d h w", h=old[0]), size=new, mode="bilinear"
            ),
        },
        what="the resized positions",
        **OF_WEIGHTS,
    )
    passed("10.3", "every new place lies between the old ones around it.")


# ---- 10.4


PAIR_SIZES = {"dim": 12, "depth": 2, "heads": 3, "mlp_dim": 20}


def _pair(frames: int = 6, tubelet: tuple[int, int, int] = (3, 4, 2), channels: int = 2) -> tuple[nn.Module, nn.Module]:
    """A Model 1 and an image transformer of its width, with large random weights: (video, image)."""
    shape = (channels, frames, 8, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        video = build_model("spacetime", clip_shape=shape, num_classes=5, tubelet=tubelet, **PAIR_SIZES)
        image = build_model(
            "spacetime",
            clip_shape=(channels, 1, 8, 4),
            num_classes=5,
            tokenizer="frames",
            tubelet=(1, *tubelet[1:]),
            **PAIR_SIZES,
        )
        for parameter in (*video.parameters(), *image.parameters()):
            nn.init.normal_(parameter, std=0.2)
    return video.eval(), image.eval()


@exercise
def check_surgery(surgery: Callable) -> None:
    """10.4: surgery(image, video, inflate) -> the state dict of a Model 1 with an image transformer's tensors."""
    for frames, tubelet in ((6, (3, 4, 2)), (4, (4, 4, 4)), (10, (2, 2, 2))):  # the first: all axes differ
        for inflate in (finished.central_frame, finished.average_frames):
            video, image = _pair(frames, tubelet)
            theirs, ours = dict(image.state_dict()), dict(video.state_dict())
            del theirs["head.weight"], theirs["head.bias"]  # as of weights without a head
            found = call(surgery, dict(theirs), dict(ours), inflate)
            if not isinstance(found, Mapping):
                raise CheckFailed(f"expected a dict of names to tensors; your function returned {kind(found)}")
            _right_names(found, ours)
            expected = finished.surgery(theirs, ours, inflate)
            for name in ("embedding.projection.weight", "positions", *ours):
                close(found[name], expected[name], _surgery_mistakes(name, theirs, ours, inflate), what=name)
    passed("10.4", "every tensor of the image model has its place in Model 1.")


def _right_names(found, ours):
    if missing := [name for name in ours if name not in found]:
        raise CheckFailed(
            f"{missing[0]} is missing: the result has every name of `video`, so that load_state_dict accepts it. What "
            "the image model lacks stays as it is in `video`"
        )
    if strange := [name for name in found if name not in ours]:
        raise CheckFailed(f"{strange[0]!r} is no name of `video`: the result has its names and no others")


TODO = {
    "embedding.projection.weight": "inflate that of `image`, inflate(filters, t)",
    "positions": "repeat those of `image` for every time index",
}


def _surgery_mistakes(name, theirs, ours, inflate):
    mistakes = {f"{name} is still that of `video`: {TODO.get(name, 'take that of `image`')}": ours[name]}
    if name not in theirs:
        return {
            f"{name} is not that of `video`: the image model has none, so it stays as it is": torch.zeros_like(
                ours[name]
            )
        }
    if name == "positions":
        s, nt = theirs[name].shape[1], ours[name].shape[1] // theirs[name].shape[1]
        return mistakes | {
            "the positions are in the order (s nt), with the copies of a place side by side: all places of the first "
            "time index come first": theirs[name].repeat_interleave(nt, dim=1),
            "the first position was left out: this image model has no cls token, so all S belong to patches": lambda: (
                theirs[name][:, 1:].repeat(1, nt, 1)
            ),
            "the positions are still the image model's, one for each of the S places: repeat them for every time "
            "index": theirs[name],
            "only the first time index has the image's positions": torch.cat((theirs[name], ours[name][:, s:]), dim=1),
        }
    if name == "embedding.projection.weight":
        filters, t = theirs[name], ours[name].shape[2]
        return mistakes | {
            "the filters went into the tubelet with another function than `inflate`: call inflate(filters, t)": (
                finished.average_frames(filters, t)
                if inflate is finished.central_frame
                else finished.central_frame(filters, t)
            ),
            "the filters are still the image model's, [D, C, ph, pw]": filters,
            "the filters stand on every frame at full strength: call inflate(filters, t)": repeat(
                filters, "d c h w -> d c t h w", t=t
            ),
        }
    return mistakes | {f"{name} is zero": torch.zeros_like(ours[name])}


# ---- 10.5


@exercise
def check_fill_block(fill_block: Callable) -> None:
    """10.5: fill_block(block, image_block): Model 3's block starts as the image model's block, in place."""
    for dim, heads, mlp_dim, shape in ((8, 2, 12, (2, 3, 5)), (12, 3, 20, (1, 4, 2))):
        config = ViViTConfig(dim=dim, heads=heads, mlp_dim=mlp_dim)
        block, image_block = FactorisedSelfAttentionBlock(config), Block(config)
        for parameter in (*block.parameters(), *image_block.parameters()):
            nn.init.normal_(parameter, std=0.4)
        before = {name: value.clone() for name, value in block.state_dict().items()}
        hints = {"leaf Variable": "write into weights inside `with torch.no_grad():`, or use torch.nn.init.zeros_"}
        call_with_hints(hints, fill_block, block, image_block, may_change=(0,))
        _filled(block, image_block, before)
        z = drawn(*shape, dim, seed=5)
        with torch.no_grad():
            expected = torch.stack([image_block(frame) for frame in z.unbind(1)], dim=1)
            close(block(z), expected, what="what the filled block makes of tokens [B, nt, S, D]")
    passed("10.5", "each time index sees what the image model sees, and every matrix learns.")


TAKEN = {
    "space_attention": "attention",
    "norm_space": "norm_attention",
    "norm_mlp": "norm_mlp",
    "mlp": "mlp",
}


def _filled(block, image_block, before):
    now, theirs = block.state_dict(), image_block.state_dict()
    if all(value.equal(before[name]) for name, value in now.items()):
        raise CheckFailed("`block` is as it was: change the block itself, in place, and not a copy of it")
    memory = {q.data_ptr() for q in image_block.parameters()}
    if shared := [n for n, p in block.named_parameters() if p.data_ptr() in memory]:
        raise CheckFailed(f"{shared[0]} is the image block's own tensor: copy the values, so that both can learn alone")
    time = block.time_attention
    if time.out.weight.any() or time.out.bias.any():
        if all(now[f"time_attention.{n}"].equal(value) for n, value in image_block.attention.state_dict().items()):
            raise CheckFailed(
                "the attention over time is a copy of the image's attention: it mixes the frames from the start. Let "
                "it add nothing at first"
            )
        which = "bias" if not time.out.weight.any() else "weight"
        raise CheckFailed(
            f"time_attention.out.{which} is not zero, so the attention over time adds something to the tokens at the "
            "start: its last map, weight and bias, has to be zero"
        )
    for part in ("qkv.weight", "qkv.bias"):
        if not now[f"time_attention.{part}"].any():
            raise CheckFailed(
                f"time_attention.{part} is zero, and W_O is, too: with two zero factors in a row nothing of it ever "
                "learns (chapter 07). Zero the output projection alone"
            )
    for ours, name in TAKEN.items():
        for leaf in (key.removeprefix(f"{name}.") for key in theirs if key.startswith(f"{name}.")):
            value, key = now[f"{ours}.{leaf}"], f"{ours}.{leaf}"
            if value.equal(theirs[f"{name}.{leaf}"]):
                continue
            if value.equal(before[key]):
                raise CheckFailed(f"{key} is as it was: it comes from the image block's {name}.{leaf}")
            raise CheckFailed(f"{key} is not the image block's {name}.{leaf}")
    touched = [n for n, value in before.items() if n.startswith("norm_time") and not value.equal(now[n])]
    if touched:
        raise CheckFailed(f"{touched[0]} has changed: the image model knows nothing of time, so leave it")
    if frozen := [n for n, p in block.named_parameters() if not p.requires_grad]:
        raise CheckFailed(f"{frozen[0]} is frozen, so it would never learn: leave requires_grad alone")


# ---- 10.6


def filled(change: Callable | None = None) -> Callable:
    """A loader load(model, image_model): the right one, or one that `change(state, image state)` has spoiled."""

    def load(model, image_model):
        theirs = image_model.state_dict()
        state = finished.surgery(theirs, model.state_dict(), finished.average_frames)
        if change is not None:
            change(state, theirs)
        model.load_state_dict(state)

    return load


EMBED = "embedding.projection.weight"


def _along_width(state, theirs):
    w, tubelet = theirs[EMBED], state[EMBED].clone().zero_()
    tubelet[..., w.shape[-1] // 2] = w[:, :, None, :, w.shape[-1] // 2]
    state[EMBED] = tubelet


def _on_the_axis_of_the_same_length(state, theirs):
    state[EMBED] = state[EMBED].transpose(2, 3).contiguous()


def _loudly(state, theirs):
    state[EMBED] = state[EMBED] * state[EMBED].shape[2]


def _places_first(state, theirs):
    nt = state["positions"].shape[1] // theirs["positions"].shape[1]
    state["positions"] = theirs["positions"].repeat_interleave(nt, dim=1)


def _without(*names):
    def change(state, theirs):
        for name in names:
            state[name] = torch.zeros_like(state[name]) if "bias" in name else torch.ones_like(state[name])

    return change


def _q_for_k(state, theirs):
    for name in [name for name in state if name.endswith("qkv.weight")]:
        q, k, v = state[name].chunk(3)
        state[name] = torch.cat((v, k, q))


def _central(model, image_model):
    model.load_state_dict(finished.surgery(image_model.state_dict(), model.state_dict(), finished.central_frame))


def _headless(model, image_model):
    state = finished.surgery(image_model.state_dict(), model.state_dict(), finished.average_frames)
    model.load_state_dict({name: value for name, value in state.items() if "head" not in name}, strict=False)


LOADERS = {  # (whether it is faithful, loader): what goes wrong unnoticed if a test calls it right, or the reverse
    "filter inflation": (True, filled()),
    "the central frame": (True, _central),
    "filter inflation, the head left fresh": (True, _headless),
    "zeros along the width": (False, filled(_along_width)),
    "time and height exchanged": (False, filled(_on_the_axis_of_the_same_length)),
    "inflation without 1/t": (False, filled(_loudly)),
    "positions in the order (s nt)": (False, filled(_places_first)),
    "no bias in the embedding": (False, filled(_without("embedding.projection.bias"))),
    "the last LayerNorm forgotten": (False, filled(_without("encoder.norm.weight", "encoder.norm.bias"))),
    "a block's LayerNorm forgotten": (False, filled(_without("encoder.blocks.0.norm_mlp.weight"))),
    "queries and values exchanged": (False, filled(_q_for_k)),
    "nothing is loaded": (False, lambda model, image_model: None),
}
HINTS = {
    "filter inflation": "Rounding alone makes a difference of about 1e-6: compare with a tolerance of 1e-3. Do both "
    "models see the same picture?",
    "the central frame": "On a still clip the central frame is as good as any, up to rounding. Does your clip stand "
    "still, and is your tolerance about 1e-3? That of allclose is far smaller",
    "filter inflation, the head left fresh": "A head belongs to the classes that it was trained on: compare `pooled`, "
    "not the logits.",
    "no bias in the embedding": "A fresh bias is zero, so fresh weights can't show that it was forgotten: fill the "
    "image model with random numbers first.",
    "the last LayerNorm forgotten": "A fresh LayerNorm has weight 1 and bias 0, so fresh weights can't show that it "
    "was forgotten: fill the image model with random numbers first.",
    "a block's LayerNorm forgotten": "A fresh LayerNorm has weight 1, so fresh weights can't show that it was "
    "forgotten: fill the image model with random numbers first.",
    "positions in the order (s nt)": "Shapes and sums are right here: only what the whole model computes can show it.",
    "time and height exchanged": "The tubelet is as long as it is high, so the shapes fit. Only the values can tell.",
    "zeros along the width": "Shapes fit and nothing raises an error. Compare what the two models compute.",
}


@exercise
def check_faithful(faithful: Callable) -> None:
    """10.6: faithful(load, model, image_model) -> whether the loader keeps the image model's answer to a still."""
    answers = {name: _said_of(load, faithful) for name, (_, load) in LOADERS.items()}
    if all(found != right for (found, _), (right, _) in zip(answers.values(), LOADERS.values())):
        raise CheckFailed("the answer is the wrong way round: True means that the loader is faithful")
    for name, (found, advice) in answers.items():
        if found != LOADERS[name][0]:
            said = "faithful" if found else "not faithful"
            hint = advice or HINTS.get(name, "Compare what the two models compute.")
            raise CheckFailed(f"your test calls this loader {said}: {name}. {hint}")
    passed(
        "10.6",
        f"your test tells {sum(right for right, _ in LOADERS.values())} good loaders from "
        f"{sum(not right for right, _ in LOADERS.values())} bad ones.",
    )


def _said_of(load, faithful):
    """What a test says of a loader, and advice on how it filled the image model."""
    seen = []  # each image model, and the size of a bias when it was loaded: 0 where it was fresh

    def noted(model, image_model):
        seen.append((image_model, image_model.encoder.norm.bias.abs().mean().item()))
        load(model, image_model)

    hints = {"its weights have changed": "work on copies, copy.deepcopy(model) and copy.deepcopy(image_model)"}
    found = flag(call_with_hints(hints, faithful, noted, *_fresh_pair()), "what your function returns")
    if any(not size and model.encoder.norm.bias.any() for model, size in seen):
        return found, "The image model was filled after `load`: fill it before."
    small = found and any(0 < size < 0.05 for _, size in seen)
    return found, "You filled the image model with numbers too small for your tolerance: try 0.2." if small else ""


def _fresh_pair():
    """Models as `build_model` makes them, tubelets as long as they are high and wide."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        video = build_model("spacetime", clip_shape=(1, 8, 8, 8), num_classes=3, tubelet=(4, 4, 4), **PAIR_SIZES)
        shape = (1, 1, 8, 8)
        image = build_model(
            "spacetime", clip_shape=shape, num_classes=3, tokenizer="frames", tubelet=(1, 4, 4), **PAIR_SIZES
        )
    return video, image


# ---- 10.7

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@exercise
def check_fold_normalisation(fold_normalisation: Callable) -> None:
    """fold_normalisation(weight [D, 3, ph, pw], bias [D], mean [3], std [3]) -> weight, bias: the normalisation
    inside."""
    generator = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(5, 3, 3, 3, generator=generator), torch.randn(5, generator=generator)  # h = w = C
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.4])
    images = torch.rand(4, 3, 6, 6, generator=generator)
    hints = {
        "non-singleton dimension 0": "the colours are axis 1 of [D, 3, ph, pw], so make mean and std [3, 1, 1]",
        "non-singleton dimension 1": "each filter has one bias: sum over colours, rows and columns, dim=(1, 2, 3)",
    }
    returned = pair(call_with_hints(hints, fold_normalisation, weight, bias, mean, std), "weight, bias")
    by_channel = rearrange(std, "c -> c 1 1")
    folded, centre = weight / by_channel, rearrange(mean, "c -> c 1 1")

    def share(filters):  # what the mean image adds to the answer of each filter: [D]
        return (filters * centre).sum(dim=(1, 2, 3))

    close(
        returned[0],
        folded,
        {
            "the filters are as they were: the division by std must go into them": weight,
            "the filters were multiplied by std: the image is divided by it, so the filters are, too": weight
            * by_channel,
            "std was laid along the width, the last axis (broadcasting counts from the right): "
            "make it [3, 1, 1] first": weight / std,
            "std was laid along the height: the colours are axis 1 of [D, 3, ph, pw], so make it [3, 1, 1]": weight
            / std[:, None],
            "mean was subtracted from the filters: it is subtracted from the image, which moves the bias alone": (
                weight - centre
            )
            / by_channel,
            "the filters were multiplied by mean": weight * centre,
            "the bias comes first: return the weight, then the bias": bias - share(folded),
            "ImageNet's std is written into the code: take `std`": weight / torch.tensor(IMAGENET[1])[:, None, None],
        },
        what="the weight",
    )

    close(
        returned[1],
        bias - share(folded),
        {
            "the bias is as it was: a filter also answers to the mean that is subtracted from the image": bias,
            "the sign: the mean is subtracted from the image, so its share is subtracted from the bias": bias
            + share(folded),
            "the share of the mean was computed with the old filters: the image is (x - mean) / std, so the mean is "
            "divided by std as well": bias - share(weight),
            "only the share of the mean is left: the image model's own bias belongs to it": -share(folded),
            "the share of the mean is a sum over all pixels of a filter, not their average": bias
            - (folded * centre).mean(dim=(1, 2, 3)),
            "the share of the mean is a sum over rows and columns too, not their average": bias
            - (folded * centre).mean(dim=(2, 3)).sum(dim=1),
            "summed over all filters at once: each filter has a share of its own, sum(dim=(1, 2, 3))": bias
            - (folded * centre).sum(),
            "ImageNet's mean is written into the code: take `mean`": bias
            - (folded * torch.tensor(IMAGENET[0])[:, None, None]).sum(dim=(1, 2, 3)),
            "the mean went in without the filters: each filter weighs the colours in its own way": bias
            - (mean / std).sum(),
            "summed over the colours only: a filter adds up its colours, its rows and its columns": bias[:, None, None]
            - (folded * centre).sum(dim=1),
            "mean was laid along the width: make it [3, 1, 1] first": bias - (folded * mean).sum(dim=(1, 2, 3)),
            "divided by std twice: the new filters hold that division already": bias - share(folded / by_channel),
        },
        what="the bias",
    )
    expected = F.conv2d((images - centre) / by_channel, weight, bias, stride=3)
    close(
        F.conv2d(images, *returned, stride=3),
        expected,
        what="the answer to an image that is not normalised",
        tolerance=1e-4,
    )
    for d, h, w in ((4, 2, 5), (1, 1, 2)):
        case = drawn(d, 3, h, w), drawn(d, seed=1), drawn(3, seed=2), drawn(3, seed=3).abs() + 0.1
        examine(fold_normalisation, finished.fold_normalisation, case, what="weight, bias", **OF_WEIGHTS)
    passed("10.7", "the new filters answer to the image as it is, as the old ones do to the normalised one.")
