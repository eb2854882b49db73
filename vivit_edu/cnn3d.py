"""3D convolutions, which treat time like height and width: a compact ResNet, and torchvision's networks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .cnn import MEAN_GREY, check_common
from .embedding import check_clips
from .errors import ConfigError
from .support.options import check_whole


def float32_on_cpu():
    """A CPU computes these models in float32, also where `Recipe.bfloat16` asks for less.

    In bfloat16 torch 2.15 leaves a third of the gradient of a 3×3×3 filter unwritten where there are two frames, as in
    the last stage: it is whatever lay in memory.
    """
    return torch.autocast("cpu", enabled=False)


@dataclass(frozen=True)
class CNN3DConfig:
    """What defines the 3D ResNet: `width` channels in its first stage, twice as many in each of the three after."""

    clip_shape: tuple = (1, 28, 28, 28)
    num_classes: int = 11
    width: int = 16
    dropout: float = 0.0

    def __post_init__(self):
        check_common(self)
        check_whole("width", self.width, 8)
        if self.width % 8:
            raise ConfigError(f"width must be a multiple of 8, which GroupNorm's groups share, got {self.width}")


class ResidualBlock(nn.Module):
    """Two 3×3×3 convolutions around which the input is carried past (He et al. 2016). GroupNorm, unlike BatchNorm,
    lets no clip see the others of its batch. [B, C, T, H, W] -> [B, width, T/step, H/step, W/step]."""

    def __init__(self, channels, width, step):
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(channels, width, 3, step, 1, bias=False), nn.GroupNorm(8, width))
        self.second = nn.Sequential(nn.Conv3d(width, width, 3, 1, 1, bias=False), nn.GroupNorm(8, width))
        same = step == 1 and channels == width
        self.past = nn.Identity() if same else nn.Conv3d(channels, width, 1, step)

    def forward(self, clips):
        return F.relu(self.second(F.relu(self.first(clips))) + self.past(clips))


class CNN3D(nn.Module):
    """A compact 3D ResNet: convolutions that treat time like height and width, down to one mean over all of it.

    forward: clips float [B, C, T, H, W] in [0, 1] -> logits [B, num_classes].
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        widths = [config.width * 2**stage for stage in range(4)]
        self.stem = nn.Sequential(nn.Conv3d(config.clip_shape[0], config.width, 3, 2, 1), nn.ReLU())
        self.stages = nn.Sequential(
            *(
                ResidualBlock(*pair, 1 if stage == 0 else 2)
                for stage, pair in enumerate(zip(widths[:1] + widths, widths))
            )
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(widths[-1], config.num_classes)

    def forward(self, clips):
        check_clips(clips, self.head.weight, tuple(self.config.clip_shape))
        with float32_on_cpu():
            features = self.stages(self.stem(clips - MEAN_GREY))  # [B, 8·width, T/16, H/16, W/16]
            return self.head(self.dropout(features.mean(dim=(2, 3, 4))))


@dataclass(frozen=True)
class TorchvisionConfig:
    """A 3D ResNet of torchvision by its name there."""

    clip_shape: tuple = (1, 28, 28, 28)
    num_classes: int = 11
    network: str = "r3d_18"

    def __post_init__(self):
        check_common(self)
        if self.clip_shape[0] not in (1, 3):
            raise ConfigError(f"torchvision's networks take 1 or 3 channels, got {self.clip_shape[0]}")


class TorchvisionCNN(nn.Module):
    """torchvision's network, its weights random; grey clips are given to all of its three channels.

    It has BatchNorm: in training, and only there, a clip's logits depend on the others of its batch.
    """

    def __init__(self, config):
        from torchvision.models import video

        super().__init__()
        self.config = config
        self.network = getattr(video, config.network)(num_classes=config.num_classes)

    def forward(self, clips):
        check_clips(clips, self.network.fc.weight, tuple(self.config.clip_shape))
        with float32_on_cpu():
            return self.network(clips.expand(-1, 3, -1, -1, -1))
