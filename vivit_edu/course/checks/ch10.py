"""Checks of chapter 10: the central frame, positions repeated along time, a normalisation folded into filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat

from ..ready import ch10 as finished
from . import call, close, drawn, examine, exercise, pair, passed

# ---- 10.1


@exercise
def check_central_frame(central_frame: Callable) -> None:
    """central_frame(filters [D, C, h, w], t) -> tubelet filters [D, C, t, h, w], zero but at frame ⌊t/2⌋."""
    generator = torch.Generator().manual_seed(0)
    for t, size in ((3, (4, 5)), (4, (3, 5)), (1, (2, 3)), (5, (5, 5))):  # the last: a shape that tells no axis apart
        filters = torch.randn(6, 2, *size, generator=generator)
        found = call(central_frame, filters, t)
        close(
            found, on_frame(filters, t, t // 2), mistakes_of_central_frame(filters, t), what=f"the result for t = {t}"
        )
    examine(central_frame, finished.central_frame, (drawn(4, 3, 2, 5), 6), (drawn(1, 1, 3, 1), 9), what="the result")
    passed("10.1", "the image filter stands on the central frame, and the others are zero.")


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
        "the zeros lie along the width, not along time: of [D, C, t, h, w], time is axis 2, so "
        "write to [:, :, t // 2]": column,
        "the zeros lie along the height, not along time: of [D, C, t, h, w], time is axis 2": row,
        "the filter was divided by t: on one frame alone it needs all its strength": central / t,
        "of an even number of frames the central one is ⌊t/2⌋, counted from 0: t // 2, not (t - 1) // 2": on_frame(
            filters, t, (t - 1) // 2
        ),
        "the filter stands on the first frame: put it on frame t // 2": on_frame(filters, t, 0),
        "the filter stands on the last frame: put it on frame t // 2": on_frame(filters, t, t - 1),
        "the new axis is time and stands third, [D, C, t, h, w]: yours stands behind the height": central.transpose(
            2, 3
        ),
        "the new axis is time and stands third, [D, C, t, h, w]: yours stands last": central.movedim(2, -1),
        "the new axis is time and stands third, [D, C, t, h, w]: yours stands before the channels": central.transpose(
            1, 2
        ),
    }


# ---- 10.2


@exercise
def check_repeat_positions(repeat_positions: Callable) -> None:
    """repeat_positions(positions [1, 1 + S, D] with the cls token's first, n_t) -> [1, n_t·S, D], tokens in order
    (t s)."""
    generator = torch.Generator().manual_seed(1)
    for n_t, s in ((3, 4), (4, 4), (1, 4), (2, 20)):
        positions = torch.randn(1, 1 + s, 6, generator=generator)
        found = call(repeat_positions, positions, n_t)
        patches = positions[:, 1:]
        expected = torch.cat([patches] * n_t, dim=1)
        close(
            found,
            expected,
            {
                "the copies of one place stand side by side, order (s t): Model 1's tokens are "
                "ordered (t s), all places "
                "of time 0 first. repeat_interleave gives the one, repeat(1, n_t, 1) the other": repeat(
                    patches, "1 s d -> 1 (s t) d", t=n_t
                ),
                "the cls token's position is still there, once in each copy: leave out "
                "positions[:, :1] first": torch.cat([positions] * n_t, dim=1),
                "the cls token's position still stands in front: this model pools by mean and "
                "has no cls token": torch.cat([positions[:, :1], expected], dim=1),
                "the last position was left out, not the first: the cls token stands in front": torch.cat(
                    [positions[:, :-1]] * n_t, dim=1
                ),
                "the cls token was left out, but nothing repeated: each of the n_t time indices "
                "needs all S positions": patches,
                "the positions were divided by n_t: each token gets one of them, so nothing is shared": expected / n_t,
                "this is the grid [1, T', S, D] that Models 3 and 4 want: Model 1 has one "
                "sequence, so merge the two axes": repeat(patches, "1 s d -> 1 t s d", t=n_t),
                "repeated along the batch axis, which must stay 1: one set of positions serves all clips": repeat(
                    patches, "1 s d -> t s d", t=n_t
                ),
                "the batch axis is lost: keep it, [1, n_t·S, D]": expected[0],
                "interpolated along the sequence: its neighbours are places of one image, so "
                "this blurs space and knows "
                "nothing of time. Repeat": lambda: stretched(patches, n_t),
                "interpolated along the sequence, and the cls token's position with it: leave "
                "that out, and repeat": lambda: stretched(positions, n_t, s),
                "the axes were regrouped by a reshape, without being moved: a token's D numbers "
                "no longer belong together": lambda: (
                    rearrange(patches, "1 s d -> 1 d s").repeat(1, 1, n_t).reshape(1, n_t * s, -1)
                ),
            },
            what=f"the result for n_t = {n_t}, S = {s}",
        )
    cases = (drawn(1, 6, 3), 4), (drawn(1, 2, 5), 2), (drawn(1, 10, 1), 1)
    examine(repeat_positions, finished.repeat_positions, *cases, what="the result")
    passed("10.2", "every time index has the image's positions, in the order of Model 1's tokens.")


def stretched(positions: torch.Tensor, n_t: int, s: int | None = None) -> torch.Tensor:
    tokens = n_t * (s or positions.shape[1])
    return F.interpolate(positions.transpose(1, 2), size=tokens, mode="linear").transpose(1, 2)


# ---- 10.3


@exercise
def check_fold_normalisation(fold_normalisation: Callable) -> None:
    """fold_normalisation(weight [D, 3, h, w], bias [D], mean [3], std [3]) -> weight, bias: the normalisation
    inside."""
    generator = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(5, 3, 3, 3, generator=generator), torch.randn(5, generator=generator)  # h = w = C
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.4])
    images = torch.rand(4, 3, 6, 6, generator=generator)
    returned = pair(call(fold_normalisation, weight, bias, mean, std), "weight, bias")
    by_channel = rearrange(std, "c -> c 1 1")
    folded, centre = weight / by_channel, rearrange(mean, "c -> c 1 1")
    close(
        returned[0],
        folded,
        {
            "the filters are as they were: the division by std must go into them": weight,
            "the filters were multiplied by std: the image is divided by it, so the filters are, too": weight
            * by_channel,
            "std was laid along the width, the last axis (broadcasting counts from the right): "
            "make it [3, 1, 1] first": weight / std,
            "std was laid along the height: the colours are axis 1 of [D, 3, h, w], so make it [3, 1, 1]": weight
            / std[:, None],
            "mean was subtracted from the filters: it is subtracted from the image, which moves the bias alone": (
                weight - centre
            )
            / by_channel,
            "the filters were multiplied by mean": weight * centre,
        },
        what="the weight",
    )

    def share(filters):  # what the mean image adds to the answer of each filter: [D]
        return (filters * centre).sum(dim=(1, 2, 3))

    close(
        returned[1],
        bias - share(folded),
        {
            "the bias is as it was: a filter also answers to the mean that is subtracted from the image": bias,
            "the sign: the mean is subtracted from the image, so its share is subtracted from the bias": bias
            + share(folded),
            "the share of the mean was reckoned with the old filters: the image is (x - mean) / std, so the mean is "
            "divided by std as well": bias - share(weight),
            "only the share of the mean is left: the image model's own bias belongs to it": -share(folded),
            "the share of the mean is a sum over all voxels of a filter, not their average": bias
            - (folded * centre).mean(dim=(1, 2, 3)),
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
        examine(fold_normalisation, finished.fold_normalisation, case, what="weight, bias")
    passed("10.3", "the new filters answer to the image as it is, as the old ones do to the normalised one.")
