"""Tubelets and frames: the same linear map written in several ways, and what happens to what does not fit."""

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import max_difference, noise, randomise
from vivit_edu import ConfigError, FrameEmbedding, TubeletEmbedding
from vivit_edu.embedding import fit_to_grid, learned_positions, token_grid

TILING = [
    ((1, 28, 28, 28), (7, 7, 7)),
    ((3, 8, 12, 6), (2, 4, 3)),
    ((2, 3, 4, 10), (1, 4, 5)),
    ((1, 6, 5, 7), (6, 5, 7)),
]


@pytest.mark.parametrize("clip_shape, tubelet", TILING)
@torch.no_grad()
def test_convolution_is_cutting_and_a_linear_map(clip_shape, tubelet):
    """The strided convolution, and the same with einops and one matrix product."""
    embedding = randomise(TubeletEmbedding(clip_shape, 10, tubelet))
    clips = noise(2, *clip_shape)
    t, h, w = tubelet
    cut = rearrange(clips, "b c (nt t) (nh h) (nw w) -> b nt (nh nw) (c t h w)", t=t, h=h, w=w)
    matrix = rearrange(embedding.projection.weight, "d c t h w -> d (c t h w)")
    assert max_difference(embedding(clips), cut @ matrix.T + embedding.projection.bias) < 1e-5
    n_t, n_h, n_w = embedding.grid
    assert embedding(clips).shape == (2, n_t, n_h * n_w, 10)


@torch.no_grad()
def test_each_token_sees_its_own_tubelet():
    """Token (i, j, k) lies where tubelet (i, j, k) does: time first, then height, then width."""
    embedding = randomise(TubeletEmbedding((1, 4, 6, 8), 5, (2, 3, 2)))  # grid (2, 2, 4)
    empty = embedding(torch.zeros(1, 1, 4, 6, 8))
    for i in range(2):
        for j in range(2):
            for k in range(4):
                clip = torch.zeros(1, 1, 4, 6, 8)
                clip[:, :, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3, 2 * k : 2 * k + 2] = 1
                changed = (embedding(clip) != empty).any(dim=-1).nonzero().tolist()
                assert changed == [[0, i, 4 * j + k]]


@pytest.mark.parametrize("clip_shape, tubelet", TILING)
@torch.no_grad()
def test_frames_are_tubelets_with_the_filter_on_the_central_frame(clip_shape, tubelet):
    frames = randomise(FrameEmbedding(clip_shape, 10, tubelet))
    tubelets = TubeletEmbedding(clip_shape, 10, tubelet)
    tubelets.projection.weight.zero_()
    tubelets.projection.weight[:, :, tubelet[0] // 2] = frames.projection.weight
    tubelets.projection.bias.copy_(frames.projection.bias)
    clips = noise(2, *clip_shape)
    assert max_difference(frames(clips), tubelets(clips)) < 1e-5
    assert frames.grid == tubelets.grid


@torch.no_grad()
def test_frames_are_sampled_uniformly():
    """Of each stretch of t frames the one at ⌊t/2⌋, and no other, reaches a token."""
    embedding = randomise(FrameEmbedding((1, 12, 2, 2), 3, (4, 2, 2)))
    empty = embedding(torch.zeros(1, 1, 12, 2, 2))
    for frame in range(12):
        clip = torch.zeros(1, 1, 12, 2, 2)
        clip[:, :, frame] = 1
        changed = (embedding(clip) != empty).any(dim=-1)[0, :, 0].nonzero().flatten().tolist()
        assert changed == ([frame // 4] if frame % 4 == 2 else [])


@pytest.mark.parametrize("frames", range(1, 13))
@pytest.mark.parametrize("remainder", ["refuse", "pad", "crop"])
@torch.no_grad()
def test_every_time_index_looks_at_one_frame_of_its_own_stretch(frames, remainder):
    """Of each stretch the one at ⌊t/2⌋, or the clip's last where padding stands there: never a black frame."""
    for t in range(1, frames + 1):
        if remainder == "refuse" and frames % t:
            continue
        embedding = randomise(FrameEmbedding((1, frames, 2, 2), 3, (t, 2, 2), remainder=remainder))
        clips = torch.zeros(1, 1, frames, 2, 2).repeat(frames, 1, 1, 1, 1)
        clips[range(frames), :, range(frames)] = 1  # clip k is white in frame k only
        seen = (embedding(clips) != embedding(torch.zeros(1, 1, frames, 2, 2))).any(dim=3)[..., 0]  # [frames, T']
        wanted = [min(first + t // 2, frames - 1) for first in range(0, frames - t * (remainder == "crop") + 1, t)]
        wanted = [frame for i, frame in enumerate(wanted) if i < embedding.grid[0]]
        assert seen.shape[1] == len(wanted) == embedding.grid[0]
        assert [index.nonzero().flatten().tolist() for index in seen.T] == [[frame] for frame in wanted]
        if (
            remainder == "pad" and frames % t > t // 2
        ):  # ⌊t/2⌋ exists in the last stretch: as tubelets padded with zeros
            tubelets = TubeletEmbedding((1, frames, 2, 2), 3, (t, 2, 2), remainder="pad")
            tubelets.projection.weight.zero_()
            tubelets.projection.weight[:, :, t // 2] = embedding.projection.weight
            tubelets.projection.bias.copy_(embedding.projection.bias)
            assert max_difference(tubelets(clips), embedding(clips)) < 1e-6


# ---- clips that tubelets do not tile ------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
def test_grids(size, tubelet):
    """The grid of every size: refused exactly where something would be left over."""
    if any(t > n for t, n in zip(tubelet, size)):
        with pytest.raises(ConfigError, match="larger than the clip|left over"):
            token_grid(size, tubelet)
        return
    tiles = not any(n % t for n, t in zip(size, tubelet))
    if tiles:
        assert token_grid(size, tubelet) == tuple(n // t for n, t in zip(size, tubelet))
    else:
        with pytest.raises(ConfigError, match="left over"):
            token_grid(size, tubelet)
    clips = noise(1, 2, *size)
    for remainder in ("pad", "crop"):
        grid = token_grid(size, tubelet, remainder)
        fitted = fit_to_grid(clips, grid, tubelet)
        assert fitted.shape[2:] == tuple(n * t for n, t in zip(grid, tubelet))
        kept = tuple(slice(min(a, b)) for a, b in zip(size, fitted.shape[2:]))
        assert torch.equal(fitted[(..., *kept)], clips[(..., *kept)])  # at the same places
        if remainder == "pad":
            assert fitted.count_nonzero() == clips.count_nonzero()  # the rest is zeros
            assert all(a >= b for a, b in zip(fitted.shape[2:], size))
        else:
            assert all(a <= b for a, b in zip(fitted.shape[2:], size))
        if tiles:
            assert fitted is clips


@pytest.mark.parametrize("kind", [TubeletEmbedding, FrameEmbedding])
def test_unasked_tubelets_are_the_courses(kind):
    embedding = kind((1, 28, 28, 28), 8)
    assert embedding.tubelet == (7, 7, 7) and embedding.grid == (4, 4, 4)


@pytest.mark.parametrize("kind", [TubeletEmbedding, FrameEmbedding])
def test_refusal_names_the_axis_and_the_sizes_that_tile(kind):
    with pytest.raises(ConfigError) as caught:
        kind((1, 28, 28, 27), 8, (7, 7, 8))
    assert (
        "width" in str(caught.value)
        and "[1, 3, 9, 27]" in str(caught.value)
        and "3 would be left over" in str(caught.value)
    )
    with pytest.raises(ConfigError, match="of 5 along time is larger than the clip of 4"):
        kind((1, 4, 8, 8), 8, (5, 4, 4))
    with pytest.raises(ConfigError, match="remainder='trim' is not known; take one of refuse, pad, crop"):
        kind((1, 4, 8, 8), 8, (2, 4, 4), remainder="trim")
    for wrong in ((4, 4), (0, 4, 4), (2, 4, -1)):
        with pytest.raises(ConfigError, match="three positive sizes"):
            kind((1, 4, 8, 8), 8, wrong)


@pytest.mark.parametrize("kind", [TubeletEmbedding, FrameEmbedding])
@torch.no_grad()
def test_padding_and_cropping(kind):
    """Padded: as if zeros had followed; cropped: as if the rest had not been there."""
    clips = noise(2, 1, 7, 8, 10)
    weights = randomise(kind((1, 8, 8, 12), 6, (4, 4, 4))).state_dict()
    for remainder, shape in (("pad", (8, 8, 12)), ("crop", (4, 8, 8))):
        fitting = torch.zeros(2, 1, *shape)
        t, h, w = (min(a, b) for a, b in zip(shape, clips.shape[2:]))
        fitting[:, :, :t, :h, :w] = clips[:, :, :t, :h, :w]
        uneven = kind((1, 7, 8, 10), 6, (4, 4, 4), remainder=remainder)
        even = kind((1, *shape), 6, (4, 4, 4))
        uneven.load_state_dict(weights)
        even.load_state_dict(weights)
        assert torch.equal(uneven(clips), even(fitting))


@pytest.mark.parametrize("kind", [TubeletEmbedding, FrameEmbedding])
def test_other_clips_are_refused(kind):
    embedding = kind((1, 4, 8, 8), 6, (2, 4, 4))
    for shape in ((2, 1, 4, 8, 4), (2, 3, 4, 8, 8), (1, 4, 8, 8)):
        with pytest.raises(ConfigError, match=r"B, 1, 4, 8, 8\], got \["):
            embedding(torch.zeros(shape))
    with pytest.raises(ConfigError, match="divide uint8 clips by 255"):
        embedding(torch.zeros(2, 1, 4, 8, 8, dtype=torch.uint8))
    for value in (float("nan"), float("inf"), -float("inf"), 255.0, -255.0):
        clips = torch.zeros(2, 1, 4, 8, 8)
        clips[1, 0, 3, 7, 7] = value
        with pytest.raises(ConfigError, match=r"must lie in \[0, 1\]"):
            embedding(clips)
    assert len(embedding(torch.zeros(0, 1, 4, 8, 8))) == 0  # an empty batch has no least value


@pytest.mark.parametrize("kind", [TubeletEmbedding, FrameEmbedding])
def test_standardised_clips_are_taken(kind):
    """A volume of mean 0 and standard deviation 1 may well reach 15, and never 255."""
    embedding = kind((1, 4, 8, 8), 6, (2, 4, 4))
    for sign in (1, -1):
        embedding(torch.full((1, 1, 4, 8, 8), 15.5 * sign))
        with pytest.raises(ConfigError, match="divide grey values by 255"):
            embedding(torch.full((1, 1, 4, 8, 8), 16.5 * sign))


def test_initial_values():
    """Positions are parameters with a standard deviation of 0.02; filters are Xavier's."""
    torch.manual_seed(0)
    positions = learned_positions(64, 128)
    assert isinstance(positions, torch.nn.Parameter) and positions.shape == (1, 64, 128)
    assert positions.std().item() == pytest.approx(0.02, rel=0.05)
    projection = TubeletEmbedding((1, 28, 28, 28), 128, (7, 7, 7)).projection
    xavier = (2 / (343 + 128)) ** 0.5  # over whole tubelets: 343 voxels in, 128 features out
    assert projection.weight.std().item() == pytest.approx(xavier, rel=0.05)
    assert projection.bias.abs().max() == 0
