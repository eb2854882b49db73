"""From a clip to tokens: uniform frame sampling, tubelets and learned positions (section 3.2).

Built by hand in chapter 03.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .errors import ConfigError
from .support.options import check_choice, check_sizes
from .support.torch_faults import readable

AXES = ("time", "height", "width")
REMAINDERS = ("refuse", "pad", "crop")
LARGEST = 16  # of a clip's values: room for standardised ones, but not for grey values from 0 to 255


def token_grid(
    clip_size: tuple[int, int, int], tubelet: tuple[int, int, int], remainder: str = "refuse"
) -> tuple[int, int, int]:
    """How many tubelets lie along (time, height, width): (n_t, n_h, n_w).

    clip_size, tubelet: (T, H, W) and (t, h, w), in voxels.
    remainder: what happens to voxels that fill no whole tubelet: "refuse" raises ConfigError and names
    the sizes that divide, "pad" adds zeros at the end of the axis, "crop" leaves them out.
    """
    check_choice("remainder", remainder, REMAINDERS)
    check_sizes("tubelet", tubelet, "t, h, w")
    for axis, size, step in zip(AXES, clip_size, tubelet):
        if step > size:
            raise ConfigError(
                f"a tubelet of {step} along {axis} is larger than the clip of {size}: choose one up to {size}"
            )
        if size % step and remainder == "refuse":
            divisors = [d for d in range(1, size + 1) if size % d == 0]
            raise ConfigError(
                f"tubelets of {step} do not tile the {size} voxels along {axis}: {size % step} would be left over. "
                f'Sizes that tile it: {divisors}. Or say remainder="pad" (zeros at the end) or "crop" (never seen)'
            )
    round_up = remainder == "pad"
    return tuple(-(-size // step) if round_up else size // step for size, step in zip(clip_size, tubelet))


def fit_to_grid(clips: torch.Tensor, grid: tuple[int, int, int], tubelet: tuple[int, int, int]) -> torch.Tensor:
    """Pads with zeros or crops at the end of each axis so that the grid of tubelets covers the clip exactly.

    clips: [B, C, T, H, W]; returns [B, C, n_t·t, n_h·h, n_w·w], the clips themselves if they already fit.
    """
    missing = [n * step - size for n, step, size in zip(grid, tubelet, clips.shape[2:])]
    if not any(missing):
        return clips
    padding = [amount for m in reversed(missing) for amount in (0, m)]  # F.pad counts from the last axis
    return F.pad(clips, padding)  # a negative amount crops


class Embedding(nn.Module):
    """What the two embeddings share: the grid of tubelets, and a projection that makes a token of each.

    clip_shape: (C, T, H, W); `grid` is (n_t, n_h, n_w), S = n_h·n_w.
    forward: clips float [B, C, T, H, W] -> tokens [B, nt, S, D].
    """

    def __init__(
        self,
        clip_shape: tuple[int, int, int, int],
        dim: int,
        tubelet: tuple[int, int, int] = (7, 7, 7),
        remainder: str = "refuse",
    ):
        super().__init__()
        check_sizes("clip_shape", clip_shape, "C, T, H, W")
        channels, *size = clip_shape
        self.grid = token_grid(size, tubelet, remainder)
        self.clip_shape, self.tubelet = tuple(clip_shape), tuple(tubelet)
        self.projection = self.make_projection(channels, dim)
        init_projection(self.projection)


class TubeletEmbedding(Embedding):
    """Non-overlapping t×h×w tubelets, each mapped to a token by one linear map: a strided 3D convolution."""

    def make_projection(self, channels: int, dim: int) -> nn.Conv3d:
        return nn.Conv3d(channels, dim, kernel_size=self.tubelet, stride=self.tubelet)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        check_clips(clips, self.projection.weight, self.clip_shape)
        tokens = self.projection(fit_to_grid(clips, self.grid, self.tubelet))  # [B, D, n_t, n_h, n_w]
        # contiguous: a token's numbers side by side in memory, as every later layer reads them
        return rearrange(tokens, "b d t h w -> b t (h w) d").contiguous()


class FrameEmbedding(Embedding):
    """Uniform frame sampling: T/t frames, each cut into h×w patches as an image ViT would cut it.

    Of each stretch of t frames the one at ⌊t/2⌋ is taken, the frame on which central-frame
    initialisation puts the image filter: with it, tubelets start as this very embedding.
    With remainder="pad" the last stretch may end before its ⌊t/2⌋; then the clip's last frame is taken.
    """

    def make_projection(self, channels: int, dim: int) -> nn.Conv2d:
        return nn.Conv2d(channels, dim, kernel_size=self.tubelet[1:], stride=self.tubelet[1:])

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        check_clips(clips, self.projection.weight, self.clip_shape)
        t, h, w = self.tubelet
        last = clips.shape[2] - 1
        frames = clips[:, :, [min(i * t + t // 2, last) for i in range(self.grid[0])]]  # [B, C, nt, H, W]
        images = rearrange(fit_to_grid(frames, self.grid, (1, h, w)), "b c t h w -> (b t) c h w")
        return rearrange(self.projection(images), "(b t) d h w -> b t (h w) d", t=self.grid[0]).contiguous()


TOKENIZERS = {"tubelet": TubeletEmbedding, "frames": FrameEmbedding}


def learned_positions(*shape: int, std: float = 0.02) -> nn.Parameter:
    """A position embedding to be learned, [1, …, D]: a parameter, drawn with this standard deviation."""
    return nn.Parameter(torch.randn(1, *shape) * std)


def prepend_cls(tokens: torch.Tensor, cls: torch.Tensor) -> torch.Tensor:
    """Puts the classification token before the others: [B, N, D] -> [B, 1 + N, D]. cls: [1, 1, D]."""
    return torch.cat((cls.expand(len(tokens), -1, -1), tokens), dim=1)


def init_projection(projection: nn.Conv2d | nn.Conv3d) -> None:
    """Xavier-uniform over whole tubelets (a voxel counts as one input), zero bias."""
    nn.init.xavier_uniform_(projection.weight.flatten(1))
    nn.init.zeros_(projection.bias)


def check_clips(clips: torch.Tensor, weight: torch.Tensor, clip_shape: tuple[int, int, int, int]) -> None:
    """Refuses clips that the model cannot take.

    clips: float [B, *clip_shape] of the type that `weight` has, finite, in [0, 1] or near it; if they are on a
    GPU, their values are not looked at. Raises ConfigError if they are not so.
    """
    if not isinstance(clips, torch.Tensor):
        raise ConfigError(
            f"clips must be a tensor [B, C, T, H, W], got a {type(clips).__name__}: torch.as_tensor makes one"
        )
    if clips.ndim != 5 or tuple(clips.shape[1:]) != clip_shape:
        expected = ", ".join(map(str, clip_shape))
        raise ConfigError(
            f"the model was built for clips [B, C, T, H, W] = [B, {expected}], got {list(clips.shape)}; "
            "reshape the clips, or build the model with their clip_shape"
        )
    if not clips.is_floating_point():
        raise ConfigError(f"clips must be float in [0, 1], got {clips.dtype}; divide uint8 clips by 255")
    if clips.dtype != weight.dtype and not torch.is_autocast_enabled(clips.device.type):
        raise ConfigError(f"the clips are {clips.dtype}, the model is {weight.dtype}: call clips.to({weight.dtype})")
    if readable(clips):
        low, high = clips.detach().aminmax()
        if not (-LARGEST < low and high < LARGEST):  # written like this, it refuses NaN, too
            raise ConfigError(
                f"clips must lie in [0, 1], or near it; these run from {low:.3g} to {high:.3g}: "
                "divide grey values by 255, and look for NaN and infinity in the data"
            )
