"""`ready("05.2")`: the course's own version of what an exercise builds, so that nobody is stuck.

Below `ready` are the finished versions, chapter by chapter, each a solution that passes its exercise's check.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn

from ..errors import ConfigError
from . import journal

if TYPE_CHECKING:
    from ..volumes import Mirror

FINISHED: dict[str, tuple[Callable, ...]] = {}  # exercise -> what it builds


def ready(exercise: str, *own: Any) -> Any:
    """What an exercise builds, finished: the notebook goes on with it where the reader's own is still open.

    exercise: its number, "05.2". own: what the reader wrote, one object or, where the exercise builds several, all of
    them in order. It is handed back if it has passed its check in this run; otherwise the course's version is, and
    `progress` lists the exercise as borrowed. Without `own` it is always the course's version.
    Returns one function, or a tuple where the exercise builds several.
    Raises ConfigError where there is no such exercise, or where it builds another number of functions.
    """
    if exercise not in FINISHED:
        chapter = [known for known in FINISHED if known[:2] == str(exercise)[:2]]
        raise ConfigError(f"there is no exercise {exercise!r}: expected one of {', '.join(chapter or FINISHED)}.")
    finished = FINISHED[exercise]
    names = ", ".join(function.__name__ for function in finished)
    if own and len(own) != len(finished):
        raise ConfigError(
            f"exercise {exercise} builds {names}, but ready was given {len(own)} objects besides its number."
        )
    if own and journal.has_passed(exercise):
        return own if len(own) > 1 else own[0]
    journal.borrowed(exercise)
    print(f"{exercise}: this notebook now uses the course's {names}.", end=" ")
    print("To use your own: run the cell in which you wrote it, then its check, then this cell.")
    return finished if len(finished) > 1 else finished[0]


def is_borrowed(function: object) -> bool:
    """Whether this is a version that `ready` hands over, and not one that the reader wrote."""
    return any(function is known for functions in FINISHED.values() for known in functions)


def builds(exercise: str) -> Callable[[Callable], Callable]:
    """A decorator that registers the finished version of what an exercise builds."""

    def register(function):
        FINISHED[exercise] = (*FINISHED.get(exercise, ()), function)
        return function

    return register


# ---- 00: start here


@builds("00.1")
def film_strip(clip: torch.Tensor) -> torch.Tensor:
    """[1, T, H, W] -> [H, T·W]"""
    return rearrange(clip, "1 t h w -> h (t w)")


@builds("00.2")
def count_tubelets(clip_shape: Sequence[int], tubelet: Sequence[int]) -> int:
    """(C, T, H, W) and (t, h, w) -> the number of tubelets"""
    _, T, H, W = clip_shape
    t, h, w = tubelet
    return (T // t) * (H // h) * (W // w)


# ---- 01: volumes as videos


@builds("01.1")
def balanced_accuracy(guesses: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[B] and [B] -> the mean over classes of the share of each that was recognised"""
    recalls = [(guesses[labels == k] == k).float().mean() for k in labels.unique()]
    return torch.stack(recalls).mean()


@builds("01.2")
def nearest_mean(clips: torch.Tensor, labels: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Training clips [B, C, T, H, W], their labels [B] and new clips [M, C, T, H, W] -> classes [M]"""
    means = torch.stack([clips[labels == k].float().mean(dim=0) for k in range(labels.max() + 1)])  # [K, C, T, H, W]
    distances = torch.cdist(new.float().flatten(1), means.flatten(1))  # [M, K]
    return distances.argmin(dim=1)


@builds("01.3")
def split_by_patient(patients: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Patients [B] of the clips -> bool [B], True for the clips of the patients that are held out"""
    numbers = patients.unique()
    shuffled = numbers[torch.randperm(len(numbers), generator=generator)]
    return torch.isin(patients, shuffled[: round(share * len(numbers))])


@builds("01.4")
def mirrored(
    clips: torch.Tensor, labels: torch.Tensor, mirror: Mirror, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [B, C, T, H, W] and labels [B], those flipped for which chosen [B] is True"""
    clips, labels = clips.clone(), labels.clone()
    clips[chosen] = clips[chosen].flip(mirror.axis + 1)
    labels[chosen] = torch.tensor(mirror.permutation)[labels[chosen]]
    return clips, labels


# ---- 02: what CNNs do with time


@builds("02.1")
def frames_seen(layers: Sequence[tuple[int, int]]) -> list[int]:
    """(span, step) of each layer -> the number of frames behind one feature, layer by layer"""
    seen, apart, result = 1, 1, []
    for span, step in layers:
        seen += (span - 1) * apart
        apart *= step
        result.append(seen)
    return result


@builds("02.2")
def two_streams(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, C, T, H, W] -> context and fovea, each [B, C, T, H/2, W/2]"""
    h, w = clips.shape[-2:]
    context = F.avg_pool3d(clips, (1, 2, 2))
    fovea = clips[..., h // 4 : h // 4 + h // 2, w // 4 : w // 4 + w // 2]
    return context, fovea


@builds("02.3")
def video_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Logits of a video's clips [B, K] -> the video's probabilities [K]"""
    return logits.softmax(dim=1).mean(dim=0)


# ---- 03: tubelet embedding


@builds("03.1")
def join_tubelets(tubelets: torch.Tensor, grid: Sequence[int], tubelet: Sequence[int]) -> torch.Tensor:
    """[B, T', S, C·t·h·w] -> [B, C, T, H, W]"""
    n_t, n_h, n_w = grid
    t, h, w = tubelet
    pattern = "b t (h w) (c pt ph pw) -> b c (t pt) (h ph) (w pw)"
    return rearrange(tubelets, pattern, t=n_t, h=n_h, w=n_w, pt=t, ph=h, pw=w)


@builds("03.2")
def token_grid(size: Sequence[int], tubelet: Sequence[int], remainder: str = "refuse") -> tuple[int, ...]:
    """(T, H, W), (t, h, w) -> (n_t, n_h, n_w)"""
    if remainder == "refuse" and any(a % b for a, b in zip(size, tubelet)):
        raise ValueError(f"tubelets of {tubelet} do not tile a clip of {size}")
    if remainder == "pad":
        return tuple(-(-a // b) for a, b in zip(size, tubelet))
    return tuple(a // b for a, b in zip(size, tubelet))


@builds("03.3")
def grid_positions(n_t: int, n_s: int, dim: int) -> torch.Tensor:
    """Positions [T', S, D]: the first half of D says when, the last half where"""

    def sinusoids(n, dim):
        speed = 10000.0 ** (-torch.arange(0, dim, 2) / dim)  # [dim/2]
        angle = torch.arange(n)[:, None] * speed  # [n, dim/2]
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)

    time = sinusoids(n_t, dim // 2)[:, None].expand(n_t, n_s, dim // 2)
    space = sinusoids(n_s, dim // 2)[None].expand(n_t, n_s, dim // 2)
    return torch.cat((time, space), dim=-1)


# ---- 04: attention


@builds("04.1")
def attention_weights(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """[..., M, d], [..., N, d] -> [..., M, N], rows adding up to 1"""
    scores = queries @ keys.transpose(-2, -1)  # [..., M, N]
    return (scores / queries.shape[-1] ** 0.5).softmax(dim=-1)


@builds("04.2")
def multi_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, N, D] three times -> [B, N, D]"""
    b, n, dim = q.shape
    q, k, v = (x.view(b, n, heads, dim // heads).transpose(1, 2) for x in (q, k, v))  # [B, heads, N, d]
    y = F.scaled_dot_product_attention(q, k, v)
    return y.transpose(1, 2).reshape(b, n, dim)


@builds("04.3")
def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, n_t: int) -> torch.Tensor:
    """[B, heads, T'·S, d] three times -> the same shape; no token sees a later time index"""
    n = q.shape[-2]
    time = torch.arange(n, device=q.device) // (n // n_t)
    allowed = time[None, :] <= time[:, None]  # [N queries, N keys]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


# ---- 05: Model 1


@builds("05.1")
def prepend_cls(tokens: torch.Tensor, cls: torch.Tensor) -> torch.Tensor:
    """[B, N, D] and [1, 1, D] -> [B, 1 + N, D]"""
    copies = cls.expand(len(tokens), -1, -1)  # [B, 1, D]
    return torch.cat((copies, tokens), dim=1)


@builds("05.2")
def encoder_block(
    z: torch.Tensor, norm_attention: Callable, attention: Callable, norm_mlp: Callable, mlp: Callable
) -> torch.Tensor:
    """y = MSA(LN z) + z, then MLP(LN y) + y: [B, N, D] -> [B, N, D]"""
    y = attention(norm_attention(z)) + z
    return mlp(norm_mlp(y)) + y


@builds("05.3")
def factorised_positions(time: torch.Tensor, space: torch.Tensor) -> torch.Tensor:
    """[1, T', D] and [1, S, D] -> [1, T'·S, D]"""
    grid = time[:, :, None] + space[:, None]  # [1, T', S, D]
    return rearrange(grid, "b t s d -> b (t s) d")


# ---- 06: Model 2


@builds("06.1")
def spatial_stage(encoder: Callable, tokens: torch.Tensor) -> torch.Tensor:
    """[B, T', S, D] -> [B, T', D]"""
    z = encoder(rearrange(tokens, "b t s d -> (b t) s d"))  # [B·T', S, D]
    return rearrange(z.mean(dim=1), "(b t) d -> b t d", b=len(tokens))


@builds("06.2")
def depends_on_mates(model: nn.Module, clips: torch.Tensor) -> bool:
    """Whether any clip's logits change with the other clips of its batch. clips: [B, C, T, H, W]"""
    model.eval()
    with torch.no_grad():
        together = model(clips)
        alone = torch.cat([model(clips[i : i + 1]) for i in range(len(clips))])
    return not torch.allclose(together, alone, atol=1e-4)


@builds("06.3")
def attention_pool(z: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """[B, T', D] and [D] -> [B, D]"""
    weights = (z @ query / z.shape[-1] ** 0.5).softmax(dim=1)  # [B, T']
    return torch.einsum("bt,btd->bd", weights, z)


# ---- 07: Model 3


@builds("07.1")
def over_time(attention: Callable, tokens: torch.Tensor) -> torch.Tensor:
    """[B, T', S, D] -> [B, T', S, D], attention among the time indices of each place"""
    folded = rearrange(tokens, "b t s d -> (b s) t d")
    return rearrange(attention(folded), "(b s) t d -> b t s d", b=len(tokens))


@builds("07.2")
def time_first(block: nn.Module, z: torch.Tensor) -> torch.Tensor:
    """Model 3's block with time before space: [B, T', S, D] -> [B, T', S, D]"""
    z = z + over_time(block.time_attention, block.norm_time(z))
    folded = rearrange(block.norm_space(z), "b t s d -> (b t) s d")
    z = z + rearrange(block.space_attention(folded), "(b t) s d -> b t s d", b=len(z))
    return z + block.mlp(block.norm_mlp(z))


@builds("07.3")
def start_as_identity(block: nn.Module) -> None:
    """Sets the temporal attention's output projection to zero, in place"""
    nn.init.zeros_(block.time_attention.out.weight)
    nn.init.zeros_(block.time_attention.out.bias)


# ---- 08: Model 4


@builds("08.1")
def split_heads(qkv: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, T', S, 3·D] -> space and time, each [3, B, T', S, heads/2, d]"""
    pattern = "b t s (three half h d) -> half three b t s h d"
    space, time = rearrange(qkv, pattern, three=3, half=2, h=heads // 2)
    return space, time


@builds("08.2")
def merge_halves(y_space: torch.Tensor, y_time: torch.Tensor, batch: int) -> torch.Tensor:
    """[B·T', heads/2, S, d] and [B·S, heads/2, T', d] -> [B, T', S, D]"""
    y_space = rearrange(y_space, "(b t) h s d -> b t s (h d)", b=batch)
    y_time = rearrange(y_time, "(b s) h t d -> b t s (h d)", b=batch)
    return torch.cat((y_space, y_time), dim=-1)


@builds("08.3")
def head_masks(n_t: int, n_s: int, heads: int, space_heads: int) -> torch.Tensor:
    """bool [heads, N, N], True where a query may attend: the first space_heads over space, the others over time"""
    token = torch.arange(n_t * n_s)
    time, place = token // n_s, token % n_s
    space_mask, time_mask = time[:, None] == time, place[:, None] == place  # [N, N] each
    return torch.stack([space_mask] * space_heads + [time_mask] * (heads - space_heads))


# ---- 09: the cost of attention


@builds("09.1")
def pairs(n_t: int, n_s: int) -> list[float]:
    """Query-key pairs per head and layer of Models 1 to 4"""
    space, time = n_t * n_s**2, n_s * n_t**2
    return [(n_t * n_s) ** 2, space + n_t**2, space + time, (space + time) / 2]


@builds("09.2")
def crossover(dim: int, mlp_dim: int) -> float:
    """The number of tokens at which half of a block's FLOPs are spent on pairs"""
    token = 8 * dim**2 + 4 * dim * mlp_dim
    pair = 4 * dim
    return token / pair


@builds("09.3")
def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of y against x where both axes are logarithmic"""
    import numpy as np

    slope, _ = np.polyfit(np.log(x), np.log(y), 1)
    return slope


# ---- 10: pretrained initialisation


@builds("10.1")
def central_frame(filters: torch.Tensor, t: int) -> torch.Tensor:
    """[D, C, h, w] -> [D, C, t, h, w]"""
    inflated = filters.new_zeros(*filters.shape[:2], t, *filters.shape[2:])
    inflated[:, :, t // 2] = filters
    return inflated


@builds("10.2")
def repeat_positions(positions: torch.Tensor, n_t: int) -> torch.Tensor:
    """[1, 1 + S, D] -> [1, n_t·S, D]"""
    return repeat(positions[:, 1:], "1 s d -> 1 (t s) d", t=n_t)


@builds("10.3")
def fold_normalisation(
    weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Filters [D, 3, h, w] and biases [D] for pictures in [0, 1] from those for normalised ones"""
    folded = weight / std[:, None, None]
    return folded, bias - (folded * mean[:, None, None]).sum(dim=(1, 2, 3))


# ---- 11: regularisation


@builds("11.1")
def both_sides(model: Callable, clips: torch.Tensor, mirror: Mirror) -> torch.Tensor:
    """[B, C, T, H, W] -> logits [B, K], the mean over the clips and their mirror images"""
    flipped = model(clips.flip(mirror.axis + 1))[:, list(mirror.permutation)]
    return (model(clips) + flipped) / 2


@builds("11.2")
def mixup(clips: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [B, C, T, H, W] and targets [B, K], each blended with the one before it; weight [B]: its own share"""
    w = rearrange(weight, "b -> b 1 1 1 1")
    clips = w * clips + (1 - w) * clips.roll(1, 0)  # [B, C, T, H, W]
    w = rearrange(weight, "b -> b 1")
    return clips, w * targets + (1 - w) * targets.roll(1, 0)


@builds("11.3")
def drop_path(branch: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """[B, N, D] -> the same shape; in training each clip's branch is dropped with probability `rate`"""
    if not training:
        return branch
    stays = torch.rand(len(branch), 1, 1) >= rate  # [B, 1, 1]
    return branch * stays / (1 - rate)


# ---- 12: full training


@builds("12.1")
def schedule(step: int, total: int, peak: float, warmup: float) -> float:
    """The learning rate at a step: a line up to the peak, then half a cosine down to zero"""
    first = warmup * total
    if step < first:
        return peak * step / first
    return peak * (1 + math.cos(math.pi * (step - first) / (total - first))) / 2


@builds("12.2")
def update_average(average: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], decay: float) -> None:
    """One step of the exponential moving average, in place"""
    with torch.no_grad():
        for a, w in zip(average, weights):
            a.mul_(decay).add_((1 - decay) * w)


@builds("12.3")
def save_run(path: Path | str, model: nn.Module, optimiser: torch.optim.Optimizer, epochs_done: int) -> None:
    """Writes a file from which `load_run` goes on"""
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "epochs_done": epochs_done}, path)


@builds("12.3")
def load_run(path: Path | str, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Fills model and optimiser from a file of `save_run`; returns the number of epochs done"""
    content = torch.load(path, weights_only=True)  # numbers only: loading such a file runs no code
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    return content["epochs_done"]


# ---- 13: attention maps


@builds("13.1")
def my_rollout(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Attention [B, heads, N, N] of each layer -> rollout [B, N, N]"""
    r = torch.eye(layers[0].shape[-1])
    for weights in layers:
        a = weights.mean(dim=1)  # [B, N, N]
        r = (a + torch.eye(a.shape[-1])) / 2 @ r
    return r


@builds("13.2")
def my_relevance(layers: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Attention and its gradients, [B, heads, N, N] of each layer -> relevance [B, N, N]"""
    r = torch.eye(layers[0].shape[-1])
    for weights, gradient in zip(layers, gradients):
        product = (gradient * weights).clamp(min=0).mean(dim=1)  # [B, N, N]
        r = r + product @ r
    return r


@builds("13.3")
def my_deletion(scores: torch.Tensor) -> torch.Tensor:
    """Scores [N] -> bool [N + 1, N]: which tokens are kept when the best 0, 1, … N are deleted"""
    ranks = scores.argsort(descending=True).argsort()  # 0 for the best
    return ranks >= torch.arange(len(scores) + 1)[:, None]


# ---- 14: CNN or ViViT


@builds("14.1")
def growth(frames: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent with which seconds grow with frames"""
    return exponent(frames, seconds)


@builds("14.2")
def shuffle_frames(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """[B, C, T, H, W] -> the same shape, the frames of each clip in a random order of its own"""
    orders = [torch.randperm(clips.shape[2], generator=generator) for _ in clips]
    return torch.stack([clip[:, order] for clip, order in zip(clips, orders)])


@builds("14.3")
def wrong_side(labels: torch.Tensor, answers: torch.Tensor, permutation: Sequence[int]) -> torch.Tensor:
    """The share of clips of sided classes that were answered with the class of the other side"""
    other = torch.tensor(permutation)[labels]
    sided = other != labels
    return (answers[sided] == other[sided]).float().mean()
