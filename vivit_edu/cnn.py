"""What CNNs do with time: the fusions of Karpathy et al. (CVPR 2014), attention after them, and 3D convolutions.

A CNN of frames is written here as the paper writes it, and read from that line: C(d,f,s) is a convolution of d filters
of f×f pixels at stride s, N local response normalisation, P max pooling over 2×2 pixels, FC(n) a fully connected layer.
The fusions differ in which frames they take and in how many frames their first convolutions span.
Chapter 02 builds them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .attention import check_heads
from .embedding import check_clips, learned_positions
from .errors import ConfigError
from .support.options import check_choice, check_depth, check_share, check_sizes, check_whole
from .support.torch_faults import float32_on_cpu
from .vivit import ACTIVATIONS, Block, Encoder

BACKBONES = {
    # Karpathy et al., section 3.1: for frames of 170×170 pixels
    "alexnet": "C(96,11,3)-N-P-C(256,5,1)-N-P-C(384,3,1)-C(384,3,1)-C(256,3,1)-P-FC(4096)-FC(4096)",
    # The same line for frames of 28×28: a quarter of the filters, a sixteenth of the nodes. The paper ends at 7×7
    # features, and so does this: from 28 two poolings lead there, so the last one is left out, as the paper leaves
    # it out for its streams of 89×89. S is the stride that makes larger frames 28 pixels again (64: 2).
    "small": "C(24,5,S)-N-P-C(64,5,1)-N-P-C(96,3,1)-C(96,3,1)-C(64,3,1)-FC(256)-FC(256)",
}
MEAN_GREY = 117 / 255  # the paper subtracts 117 from each pixel

Layer = tuple[str, tuple[int, ...]]  # of a plan: ("C", (96, 11, 3)), ("N", ()) or ("P", ())


def read_plan(line: str, stride: int = 1) -> tuple[list[Layer], list[int]]:
    """A backbone's line as two lists: its convolutional layers, and the sizes of its fully connected ones."""
    found = re.findall(r"(FC|C|N|P)(?:\(([\w,]+)\))?", line.replace("S", str(stride)))
    layers = [(kind, tuple(map(int, sizes.split(",")))) if sizes else (kind, ()) for kind, sizes in found]
    return [layer for layer in layers if layer[0] != "FC"], [sizes[0] for kind, sizes in layers if kind == "FC"]


# ---- which frames meet where ----------------------------------------------------------------------------------
# Each fusion tells which of T frames it takes, and for its first convolutions how many frames they span and their
# stride in time. All other convolutions look at one frame at a time, until the first fully connected layer.


def single_frame(frames: int) -> tuple[Sequence[int], tuple[tuple[int, int], ...]]:
    """The frame in the middle, and nothing else."""
    return [frames // 2], ()


def early_fusion(frames: int) -> tuple[Sequence[int], tuple[tuple[int, int], ...]]:
    """The first convolution spans all frames; after it there is no time left."""
    return range(frames), ((frames, 1),)


def late_fusion(frames: int) -> tuple[Sequence[int], tuple[tuple[int, int], ...]]:
    """Two frames, two thirds of the clip apart (the paper's are 15 frames apart): they meet in the first fully
    connected layer."""
    return [frames // 6, frames - 1 - frames // 6], ()


def slow_fusion(frames: int) -> tuple[Sequence[int], tuple[tuple[int, int], ...]]:
    """4 frames, then 2, then 2, each at stride 2: of the paper's 10 frames, the third convolution sees all."""
    return range(frames), ((4, 2), (2, 2), (2, 2))


FUSIONS = {f.__name__: f for f in (single_frame, early_fusion, late_fusion, slow_fusion)}


# ---- layers ---------------------------------------------------------------------------------------------------


class Convolution(nn.Conv3d):
    """f×f pixels and `span` frames. Space is padded to keep its size at stride 1. Time is not padded, but where
    its stride would leave frames over, black ones are added at the end. [B, C, T, H, W] -> [B, d, T', H', W']."""

    def __init__(self, channels: int, width: int, size: int, stride: int, span: int = 1, step: int = 1):
        super().__init__(channels, width, (span, size, size), (step, stride, stride), (0, size // 2, size // 2))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.bias)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        missing = max(self.kernel_size[0] - clips.shape[2], 0)
        missing += -(clips.shape[2] + missing - self.kernel_size[0]) % self.stride[0]
        return super().forward(F.pad(clips, (0, 0, 0, 0, 0, missing)) if missing else clips)


class LocalResponseNorm(nn.LocalResponseNorm):
    """torch's, without torch's pooling: faster to train on a CPU, and in bfloat16 too, for which 3D pooling has no CPU
    kernel.

    With the paper's numbers it is Krizhevsky's: x / (2 + 1e-4 Σ x²)^0.5, the sum over a channel and two either side.
    [B, C, T, H, W] -> same.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        padded = F.pad(features.square(), (0, 0) * 3 + (self.size // 2, (self.size - 1) // 2))  # channels of zeros
        sums = sum(padded[:, i : i + features.shape[1]] for i in range(self.size))  # [B, C, T, H, W]
        return features * (self.k + self.alpha / self.size * sums) ** -self.beta


def convolutions(layers: list[Layer], channels: int, spans: tuple[tuple[int, int], ...] = ()) -> nn.Sequential:
    """The convolutional part of a plan: [B, C, T, H, W] -> [B, d, T', H', W'].

    spans: (frames, stride in time) of the first convolutions; the others span one frame.
    """
    modules, spans = [], iter(spans)
    for kind, sizes in layers:
        if kind == "C":
            modules += [Convolution(channels, *sizes, *next(spans, (1, 1))), nn.ReLU()]
            channels = sizes[0]
        elif kind == "N":
            modules.append(LocalResponseNorm(5, alpha=5e-4, beta=0.5, k=2))
        else:
            modules.append(nn.MaxPool3d((1, 2, 2)))
    return nn.Sequential(*modules)


def fully_connected(inputs: int, sizes: list[int], num_classes: int, dropout: float) -> nn.Sequential:
    """[B, inputs] -> logits [B, num_classes], with a ReLU after each layer but the last."""
    modules = []
    for size in sizes:
        modules += [nn.Linear(inputs, size), nn.ReLU(), nn.Dropout(dropout)]
        inputs = size
    head = nn.Linear(inputs, num_classes)
    for linear in (*modules[::3], head):
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
    nn.init.normal_(head.weight, std=0.02)
    return nn.Sequential(*modules, head)


def without_last_pooling(layers: list[Layer]) -> list[Layer]:
    """A plan's convolutional layers without the last P among them."""
    last = max(i for i, (kind, _) in enumerate(layers) if kind == "P")
    return layers[:last] + layers[last + 1 :]


# ---- the fusions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CNNConfig:
    """What defines a CNN of Karpathy et al. `fusion`: one of FUSIONS; `backbone`: one of BACKBONES."""

    clip_shape: tuple[int, int, int, int] = (1, 28, 28, 28)  # (C, T, H, W)
    num_classes: int = 11
    fusion: str = "single_frame"
    backbone: str = "small"
    dropout: float = 0.0  # between the fully connected layers

    def __post_init__(self) -> None:
        check_choice("fusion", self.fusion, FUSIONS)
        check_choice("backbone", self.backbone, BACKBONES)
        check_common(self)
        if self.fusion == "late_fusion" and self.clip_shape[1] < 2:
            raise ConfigError("late fusion takes two frames, and the clips have one: take single_frame")

    def plan(self) -> tuple[list[Layer], list[int]]:
        """The backbone's convolutional layers, and the sizes of its fully connected ones."""
        stride = max(1, round(min(self.clip_shape[2:]) / 28))
        return read_plan(BACKBONES[self.backbone], stride)


class FusionCNN(nn.Module):
    """Single frame, early, late or slow fusion (section 3.1), by `config.fusion`.

    forward: clips float [B, C, T, H, W] in [0, 1] -> logits [B, num_classes].
    """

    configured_by = CNNConfig

    def __init__(self, config: CNNConfig):
        super().__init__()
        self.config = config
        self.frames, spans = FUSIONS[config.fusion](config.clip_shape[1])
        self.build_features(config.plan()[0], spans)
        with torch.no_grad():
            inputs = self.features(torch.zeros(1, *config.clip_shape)).shape[1]
        self.classifier = fully_connected(inputs, config.plan()[1], config.num_classes, config.dropout)

    def build_features(self, layers: list[Layer], spans: tuple[tuple[int, int], ...]) -> None:
        """Makes the convolutional part; spans: as `convolutions` takes them."""
        check_pixels(layers, self.config.clip_shape[2:])
        self.tower = convolutions(layers, self.config.clip_shape[0], spans)

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """What the convolutions make of the frames that this fusion takes: [B, …], flat."""
        return self.tower(self.take_frames(clips)).flatten(1)

    def take_frames(self, clips: torch.Tensor) -> torch.Tensor:
        """The frames that this fusion takes, less the mean grey: [B, C, T, H, W] -> [B, C, frames, H, W]."""
        return clips[:, :, list(self.frames)] - MEAN_GREY

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        check_clips(clips, self.classifier[0].weight, tuple(self.config.clip_shape))
        return self.classifier(self.features(clips))


class Multiresolution(FusionCNN):
    """Two streams of half the frame's size (section 3.2): the whole frame at half resolution (context) and its
    centre at full resolution (fovea). Each has its own convolutions, without the last pooling; they meet in the
    first fully connected layer. `config.fusion` decides what each stream does with time.
    """

    def build_features(self, layers: list[Layer], spans: tuple[tuple[int, int], ...]) -> None:
        """Makes the convolutions of both streams."""
        channels, *size = self.config.clip_shape
        layers = without_last_pooling(layers)
        check_pixels([("P", ()), *layers], size[1:])  # a stream has half of the frame's size
        self.context, self.fovea = (convolutions(layers, channels, spans) for _ in range(2))

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """What both streams make of the frames that this fusion takes: [B, …], flat."""
        frames = self.take_frames(clips)
        streams = self.context(see_context(frames)), self.fovea(see_fovea(frames))
        return torch.cat([stream.flatten(1) for stream in streams], dim=1)


def see_context(clips: torch.Tensor) -> torch.Tensor:
    """Each frame at half its resolution, by the mean of 2×2 pixels: [B, C, T, H, W] -> [B, C, T, H/2, W/2]."""
    return F.avg_pool2d(clips.flatten(1, 2), 2).unflatten(1, clips.shape[1:3])


def see_fovea(clips: torch.Tensor) -> torch.Tensor:
    """The middle of each frame, half as high and wide: [B, C, T, H, W] -> [B, C, T, H/2, W/2]."""
    height, width = (size // 2 for size in clips.shape[3:])
    top, left = ((size - size // 2) // 2 for size in clips.shape[3:])
    return clips[..., top : top + height, left : left + width]


# ---- a CNN of frames, and attention over what it found ----------------------------------------------------------


@dataclass(frozen=True)
class CNNAttentionConfig:
    """What defines the CNN with attention. Every `frame_step`-th frame is looked at; 1 takes them all."""

    clip_shape: tuple[int, int, int, int] = (1, 28, 28, 28)
    num_classes: int = 11
    backbone: str = "small"
    frame_step: int = 2
    dim: int = 128
    depth: int = 2  # layers of attention
    heads: int = 4
    mlp_dim: int = 256
    dropout: float = 0.0
    drop_path: float = 0.0
    activation: str = "gelu"

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, BACKBONES)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_share("drop_path", self.drop_path)
        check_common(self)
        for name in ("frame_step", "dim", "mlp_dim"):
            check_whole(name, getattr(self, name), 1)
        check_depth("depth", self.depth, 1)
        check_heads(self.dim, self.heads)

    plan = CNNConfig.plan


class CNNAttention(nn.Module):
    """The frame CNN, and self-attention over its features in space and time: the step before ViViT, which puts a
    linear map of tubelets in the CNN's place (compare Wang et al., Non-local Neural Networks, CVPR 2018).

    forward: clips float [B, C, T, H, W] in [0, 1] -> logits [B, num_classes].
    """

    configured_by = CNNAttentionConfig

    def __init__(self, config: CNNAttentionConfig):
        super().__init__()
        self.config = config
        layers = config.plan()[0] + [("P", ())]  # a quarter of the tokens
        check_pixels(layers, config.clip_shape[2:])
        self.tower = convolutions(layers, config.clip_shape[0])
        with torch.no_grad():
            _, width, t, h, w = self.see(torch.zeros(1, *config.clip_shape)).shape
        self.projection = nn.Linear(width, config.dim)
        self.positions = learned_positions(t * h * w, config.dim)
        self.encoder = Encoder(Block, config.depth, config)
        self.head = nn.Linear(config.dim, config.num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def see(self, clips: torch.Tensor) -> torch.Tensor:
        """What the CNN makes of each frame that is looked at: [B, C, T, H, W] -> [B, d, T', H', W']."""
        return self.tower(clips[:, :, :: self.config.frame_step] - MEAN_GREY)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        check_clips(clips, self.head.weight, tuple(self.config.clip_shape))
        tokens = rearrange(self.see(clips), "b d t h w -> b (t h w) d")
        z = self.encoder(self.projection(tokens) + self.positions)  # [B, N, D]
        return self.head(z.mean(dim=1))


# ---- 3D convolutions, which treat time like height and width --------------------------------------------------


@dataclass(frozen=True)
class CNN3DConfig:
    """What defines the 3D ResNet: `width` channels in its first stage, twice as many in each of the three after."""

    clip_shape: tuple[int, int, int, int] = (1, 28, 28, 28)
    num_classes: int = 11
    width: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_common(self)
        check_whole("width", self.width, 8)
        if self.width % 8:
            raise ConfigError(f"width must be a multiple of 8, which GroupNorm's groups share, got {self.width}")


class ResidualBlock(nn.Module):
    """Two 3×3×3 convolutions with a connection around them (He et al. 2016). GroupNorm, unlike BatchNorm,
    keeps the clips of a batch apart. [B, C, T, H, W] -> [B, width, T/step, H/step, W/step]."""

    def __init__(self, channels: int, width: int, step: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(channels, width, 3, step, 1, bias=False), nn.GroupNorm(8, width))
        self.second = nn.Sequential(nn.Conv3d(width, width, 3, 1, 1, bias=False), nn.GroupNorm(8, width))
        same = step == 1 and channels == width
        self.past = nn.Identity() if same else nn.Conv3d(channels, width, 1, step)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(F.relu(self.first(clips))) + self.past(clips))


class CNN3D(nn.Module):
    """A compact 3D ResNet: convolutions that treat time like height and width, down to one mean over all of it.

    forward: clips float [B, C, T, H, W] in [0, 1] -> logits [B, num_classes].
    """

    configured_by = CNN3DConfig

    def __init__(self, config: CNN3DConfig):
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

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        check_clips(clips, self.head.weight, tuple(self.config.clip_shape))
        with float32_on_cpu():
            features = self.stages(self.stem(clips - MEAN_GREY))  # [B, 8·width, T/16, H/16, W/16]
            return self.head(self.dropout(features.mean(dim=(2, 3, 4))))


@dataclass(frozen=True)
class TorchvisionConfig:
    """A 3D ResNet of torchvision by its name there."""

    clip_shape: tuple[int, int, int, int] = (1, 28, 28, 28)
    num_classes: int = 11
    network: str = "r3d_18"

    def __post_init__(self) -> None:
        check_common(self)
        if self.clip_shape[0] not in (1, 3):
            raise ConfigError(f"torchvision's networks take 1 or 3 channels, got {self.clip_shape[0]}")


class TorchvisionCNN(nn.Module):
    """torchvision's network, its weights random; grey clips are given to all of its three channels.

    It has BatchNorm: in training, and only there, a clip's logits depend on the others of its batch.
    """

    configured_by = TorchvisionConfig

    def __init__(self, config: TorchvisionConfig):
        from torchvision.models import video

        super().__init__()
        self.config = config
        self.network = getattr(video, config.network)(num_classes=config.num_classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        check_clips(clips, self.network.fc.weight, tuple(self.config.clip_shape))
        with float32_on_cpu():
            return self.network(clips.expand(-1, 3, -1, -1, -1))


# ---- several clips of one video -----------------------------------------------------------------------------------


@torch.no_grad()
def predict_video(model: nn.Module, views: torch.Tensor) -> torch.Tensor:
    """A model's answer for a whole video: the mean of its probabilities over several clips (section 4.1).

    views: uint8 or float in [0, 1], [V, C, T, H, W], as `load_clip` gives them. Returns float [K], summing to 1.
    The paper takes 20 clips at random places, each in 4 crops and flips. Raises ConfigError if there is no view.
    """
    if len(views) == 0:
        raise ConfigError("a video was given with no views (V = 0): take at least one, as load_clip(…, views=1) does")
    views = views.float() / 255 if views.dtype == torch.uint8 else views
    return model.eval()(views).softmax(dim=1).mean(dim=0)


# ---- checks ---------------------------------------------------------------------------------------------------


def check_pixels(layers: list[Layer], size: tuple[int, int]) -> None:
    """Refuses frames (H, W) of which nothing is left after the poolings of these layers."""
    left = size
    for kind, numbers in layers:
        if kind == "C":
            left = [-(-pixels // numbers[2]) for pixels in left]  # padded, so a stride rounds up
        elif kind == "P":
            left = [pixels // 2 for pixels in left]
    if min(left) < 1:
        raise ConfigError(
            f"frames of {'×'.join(map(str, size))} pixels are too small for this backbone: after its poolings nothing "
            'is left; take larger frames, or backbone="small"'
        )


def check_common(config: object) -> None:
    """Checks the options that every CNN's configuration has: clip_shape, num_classes and dropout."""
    check_sizes("clip_shape", config.clip_shape, "C, T, H, W")
    check_whole("num_classes", config.num_classes, 1)
    check_share("dropout", getattr(config, "dropout", 0.0))
