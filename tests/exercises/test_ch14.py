"""Chapter 14: what its checks accept and refuse, and what its text says of the recorded tables."""

import math
import random
import statistics

import numpy as np
import pytest
import torch
from torchvision.models import resnet18
from torchvision.models.video import r3d_18

from vivit_edu import MODELS, build_model, load_videos, load_volumes
from vivit_edu.cnn import late_fusion
from vivit_edu.cost import count_flops, count_parameters
from vivit_edu.course import comparisons
from vivit_edu.course.checks import ch14
from vivit_edu.course.ready.ch14 import decided, time_to_share
from vivit_edu.course.recorded import mean_sd, recorded
from vivit_edu.course.stand_in_videos import stand_in_videos
from vivit_edu.experiments.probes import CHANGES
from vivit_edu.experiments.tables import HUNGER_RATES, PATIENCE_RATES
from vivit_edu.support.places import checkout

from ..references import VIVITS
from .cases import run_cases

# ---- 14.1


def by_running_sum(accuracies, seconds, share=0.9):
    spent = 0.0
    for accuracy, duration in zip(accuracies, seconds):
        spent += duration
        if accuracy >= share * accuracies[-1]:
            return spent


def by_cumsum(accuracies, seconds, share=0.9):
    first = np.argmax(np.array(accuracies) >= share * accuracies[-1])
    return np.cumsum(seconds)[first]


def by_next(accuracies, seconds, share=0.9):
    goal = share * accuracies[-1]
    place = next(i for i in range(len(accuracies)) if accuracies[i] >= goal)
    return sum(seconds[: place + 1])


def by_torch(accuracies, seconds, share=0.9):
    a, s = torch.tensor(accuracies, dtype=torch.float64), torch.tensor(seconds)
    return s[: (a >= share * a[-1]).nonzero()[0] + 1].sum()


def first(accuracies, goal):
    return next((i for i, accuracy in enumerate(accuracies) if accuracy >= goal), len(accuracies) - 1)


test_time_to_share = run_cases(
    lambda time_to_share: ch14.check_first_tools(time_to_share, by_numpy),
    right=[by_running_sum, by_cumsum, by_next, by_torch],
    wrong={
        "one epoch less": (lambda a, s, share=0.9: sum(s[: first(a, share * a[-1])]), "its seconds are missing"),
        "that epoch alone": (lambda a, s, share=0.9: s[first(a, share * a[-1])], "of that one epoch"),
        "its number": (lambda a, s, share=0.9: first(a, share * a[-1]) + 1, "number of the epoch"),
        "its place": (lambda a, s, share=0.9: first(a, share * a[-1]), "place of the epoch"),
        "the share itself": (lambda a, s, share=0.9: sum(s[: first(a, share) + 1]), "share of the last accuracy"),
        "of the best": (lambda a, s, share=0.9: sum(s[: first(a, share * max(a)) + 1]), "the final one is the last"),
        "always 0.9": (lambda a, s, share=0.9: by_next(a, s, 0.9), "it is an argument"),
        "the whole run": (lambda a, s, share=0.9: sum(s), "whole run"),
        "more than": (
            lambda a, s, share=0.9: sum(s[: next(i for i, v in enumerate(a) if v > share * a[-1]) + 1]),
            "reaching the share exactly|StopIteration",
        ),
        "for good": (
            lambda a, s, share=0.9: sum(s[: max((i for i, v in enumerate(a) if v < share * a[-1]), default=-1) + 2]),
            "the first that reaches it",
        ),
        "sorted": (lambda a, s, share=0.9: by_next(sorted(a), s, share), "(is|are) wrong|final one"),
        "a mean second": (lambda a, s, share=0.9: np.mean(s) * (first(a, share * a[-1]) + 1), "(is|are) wrong"),
        "all epochs below": (
            lambda a, s, share=0.9: sum(duration for value, duration in zip(a, s) if value < share * a[-1]),
            "all epochs below the goal",
        ),
        "all running sums": (lambda a, s, share=0.9: np.cumsum(s), "numbers|shape|array|True"),
        "two arguments": (lambda a, s: by_next(a, s), "TypeError"),
        "popped": (lambda a, s, share=0.9: by_next(a, s, share) + 0 * s.pop(), "changes the"),
        "no return": (lambda a, s, share=0.9: None, "None"),
    },
)


def by_numpy(first, second):
    return abs(np.mean(first) - np.mean(second)) > 2 * max(np.std(first, ddof=1), np.std(second, ddof=1))


def by_statistics(first, second):
    larger = max(statistics.stdev(first), statistics.stdev(second))
    return abs(statistics.mean(first) - statistics.mean(second)) / larger > 2


def by_tensors(first, second):
    a, b = (torch.tensor(runs, dtype=torch.float64) for runs in (first, second))
    return (a.mean() - b.mean()).abs() > 2 * torch.maximum(a.std(), b.std())


def gap(first, second):
    return abs(np.mean(first) - np.mean(second))


def sd(values):
    return np.std(values, ddof=1)


def joined(join, spread=sd):
    """A verdict from how the two spreads are made one."""
    return lambda a, b: gap(a, b) > 2 * join(spread(a), spread(b))


def all_by_three(first, second):
    means = [sum(runs) / 3 for runs in (first, second)]
    spreads = [(sum((x - mean) ** 2 for x in runs) / 2) ** 0.5 for runs, mean in zip((first, second), means)]
    return abs(means[0] - means[1]) > 2 * max(spreads)


test_decided = run_cases(
    lambda decided: ch14.check_first_tools(by_running_sum, decided),
    right=[by_numpy, by_statistics, by_tensors],
    wrong={
        "the sign": (
            lambda a, b: np.mean(a) - np.mean(b) > 2 * max(np.std(a, ddof=1), np.std(b, ddof=1)),
            "whichever of the two",
        ),
        "once": (lambda a, b: gap(a, b) > max(np.std(a, ddof=1), np.std(b, ddof=1)), "twice was asked for"),
        "n below the sum": (lambda a, b: gap(a, b) > 2 * max(np.std(a), np.std(b)), "ddof=1"),
        "the smaller": (
            lambda a, b: gap(a, b) > 2 * min(np.std(a, ddof=1), np.std(b, ddof=1)),
            "the larger one was asked for",
        ),
        "the sum": (lambda a, b: gap(a, b) > 2 * (np.std(a, ddof=1) + np.std(b, ddof=1)), "added up"),
        "their mean": (joined(lambda s, t: (s + t) / 2), "the mean of the two spreads"),
        "pooled": (joined(lambda s, t: np.sqrt((s**2 + t**2) / 2)), "pooled"),
        "in quadrature": (joined(math.hypot), "squares of the spreads were added up"),
        "standard errors": (joined(max, lambda values: sd(values) / len(values) ** 0.5), "standard error"),
        "medians": (lambda a, b: abs(np.median(a) - np.median(b)) > 2 * max(sd(a), sd(b)), "medians"),
        "sums by 3": (lambda a, b: abs(sum(a) / 3 - sum(b) / 3) > 2 * max(sd(a), sd(b)), "divided by 3"),
        "everything by 3": (all_by_three, "you said"),
        "the first's": (lambda a, b: gap(a, b) > 2 * np.std(a, ddof=1), "spread of the first"),
        "the second's": (lambda a, b: gap(a, b) > 2 * np.std(b, ddof=1), "spread of the second"),
        "together": (lambda a, b: gap(a, b) > 2 * np.std([*a, *b], ddof=1), "you said"),
        "not decided": (lambda a, b: not by_numpy(a, b), "when it is not decided"),
        "best against worst": (lambda a, b: min(a) > max(b) or min(b) > max(a), "you said"),
        "a number": (lambda a, b: gap(a, b), "True or False"),
        "variances": (lambda a, b: gap(a, b) > 2 * max(np.var(a, ddof=1), np.var(b, ddof=1)), "you said|twice"),
        "element by element": (lambda a, b: np.array(a) > np.array(b), "True or False|your code raised"),
        "sorted in place": (lambda a, b: (a.sort(reverse=True), by_numpy(a, b))[1], "changes the"),
        "no return": (lambda a, b: None, "True or False"),
    },
)

# ---- 14.3


def by_flip(clips):
    return clips.flip(2)


def by_stack(clips):
    return torch.stack(clips.unbind(2)[::-1], dim=2)


def by_places(clips):
    return clips[:, :, list(range(clips.shape[2] - 1, -1, -1))]


def by_expand(clips):
    middle = clips.shape[2] // 2
    return clips[:, :, middle : middle + 1].expand(clips.shape).clone()


def by_repeat(clips):
    return clips[:, :, clips.shape[2] // 2, None].repeat(1, 1, clips.shape[2], 1, 1)


def by_index(clips):
    return clips.index_select(2, torch.full((clips.shape[2],), clips.shape[2] // 2))


def by_swap(clips, labels, mirror):
    return clips.flip(mirror.axis + 1), torch.tensor(mirror.permutation)[labels]


def by_dims(clips, labels, mirror):
    return torch.flip(clips, dims=[mirror.axis - 4]), torch.tensor([mirror.permutation[k] for k in labels.tolist()])


def by_each(clips, labels, mirror):
    return torch.stack([clip.flip(mirror.axis) for clip in clips]), torch.as_tensor(mirror.permutation)[labels]


def by_numpy_step(clips):
    return torch.from_numpy(clips.numpy()[:, :, ::-1].copy())


def by_numpy_repeat(clips):
    frames = clips.shape[2]
    return torch.from_numpy(np.repeat(clips.numpy()[:, :, frames // 2, None], frames, axis=2))


def by_numpy_flip(clips, labels, mirror):
    flipped = np.flip(clips.numpy(), mirror.axis + 1).copy()
    return torch.from_numpy(flipped), torch.from_numpy(np.array(mirror.permutation)[labels.numpy()])


def three(reverse=by_flip, freeze=by_expand, mirrored=by_swap):
    """A check of all three, of which one is looked at."""

    def solution():
        return reverse, freeze, mirrored

    return solution


def check_three(solution):
    ch14.check_order_probes(*solution())


def flips():
    return by_flip, by_expand, by_swap


def loops():
    return by_stack, by_repeat, by_each


def places():
    return by_places, by_index, by_dims


def arrays():
    return by_numpy_step, by_numpy_repeat, by_numpy_flip


def in_place_reverse(clips):
    clips[:] = clips.flip(2)
    return clips


def swapped_in_place(clips, labels, mirror):
    labels[:] = torch.tensor(mirror.permutation)[labels]
    return clips.flip(mirror.axis + 1), labels


test_order_probes = run_cases(
    check_three,
    right=[flips, loops, places, arrays],
    wrong={
        "the batch": (three(lambda x: x.flip(0)), "reverse: .*axis 0"),
        "the channels": (three(lambda x: x.flip(1)), "reverse: .*channels"),
        "rows": (three(lambda x: x.flip(3)), "reverse: .*rows"),
        "columns": (three(lambda x: x.flip(-1)), "reverse: .*columns"),
        "all axes": (three(lambda x: x.flip(2, 3, 4)), "reverse: .*all three axes"),
        "nothing": (three(lambda x: x), "reverse: .*order that they had"),
        "a step of -1": (three(lambda x: x[:, :, ::-1]), "reverse: .*step|ValueError"),
        "in place": (three(in_place_reverse), "reverse: .*changes the"),
        "no return": (three(lambda x: None), "reverse: .*None"),
        "the first frame": (three(freeze=lambda x: x[:, :, :1].expand(x.shape)), "freeze: .*first frame"),
        "the last frame": (three(freeze=lambda x: x[:, :, -1:].expand(x.shape)), "freeze: .*last frame"),
        "number 14": (three(freeze=lambda x: x[:, :, [14] * 28]), "freeze: .*IndexError"),
        "one frame": (three(freeze=lambda x: x[:, :, x.shape[2] // 2]), "freeze: .*all T places"),
        "one frame with its axis": (
            three(freeze=lambda x: x[:, :, x.shape[2] // 2 : x.shape[2] // 2 + 1]),
            "freeze: .*repeat it T times",
        ),
        "the mean": (
            three(freeze=lambda x: x.float().mean(2, keepdim=True).expand(x.shape)),
            "freeze: .*mean of all frames",
        ),
        "the lower middle": (
            three(freeze=lambda x: x[:, :, (x.shape[2] - 1) // 2, None].expand(x.shape)),
            "freeze: .*where T is even",
        ),
        "the axis of one clip": (
            three(mirrored=lambda x, y, m: (x.flip(m.axis), torch.tensor(m.permutation)[y])),
            "mirrored: .*comes one later",
        ),
        "labels as they were": (three(mirrored=lambda x, y, m: (x.flip(m.axis + 1), y)), "mirrored: .*of before"),
        "labels alone": (
            three(mirrored=lambda x, y, m: (x, torch.tensor(m.permutation)[y])),
            "mirrored: .*clips are as they were",
        ),
        "always columns": (
            three(mirrored=lambda x, y, m: (x.flip(-1), torch.tensor(m.permutation)[y])),
            "mirrored: .*whatever mirror.axis says|mirrored: .*With other",
        ),
        "a list of labels": (
            three(mirrored=lambda x, y, m: (x.flip(m.axis + 1), [m.permutation[k] for k in y])),
            "mirrored: .*a list",
        ),
        "the tuple indexed": (
            three(mirrored=lambda x, y, m: (x.flip(m.axis + 1), m.permutation[y])),
            "mirrored: .*make it a tensor first(?s:(?!notebook's sizes).)*$",
        ),
        "clips alone": (three(mirrored=lambda x, y, m: x.flip(m.axis + 1)), "mirrored: "),
        "labels in place": (
            three(mirrored=swapped_in_place),
            "mirrored: .*changes the labels|mirrored: .*changes the y",
        ),
    },
)

# ---- 14.4


def by_trying(clips, generator):
    frames = torch.arange(clips.shape[2])
    shuffled = []
    for clip in clips:
        order = torch.randperm(len(frames), generator=generator)
        while (order == frames).any():
            order = torch.randperm(len(frames), generator=generator)
        shuffled.append(clip[:, order])
    return torch.stack(shuffled)


def by_gather(clips, generator):
    b, _, t = clips.shape[:3]
    order = torch.arange(t).expand(b, t)
    while (stays := (order == torch.arange(t)).any(1)).any():
        order = torch.where(stays[:, None], torch.rand(b, t, generator=generator).argsort(1), order)
    return clips.gather(2, order[:, None, :, None, None].expand_as(clips))


def by_choice(clips, generator):
    """Frame after frame, and again from the start where none is left: not all orders are equally likely."""

    def order(size):
        chosen = []
        while len(chosen) < size:
            left = [frame for frame in range(size) if frame not in chosen and frame != len(chosen)]
            chosen = [*chosen, left[int(torch.randint(len(left), (), generator=generator))]] if left else []
        return chosen

    return torch.stack([clip[:, order(clip.shape[1])] for clip in clips])


def by_array(clips, generator):
    result = clips.numpy().copy()
    for clip in result:
        clip[:] = clip[:, moved(clip.shape[1], generator).numpy()]
    return torch.from_numpy(result)


def by_sattolo(clips, generator):
    """One cycle through all frames."""
    result = clips.clone()
    for k in range(len(clips)):
        order = list(range(clips.shape[2]))
        for i in range(len(order) - 1, 0, -1):
            j = int(torch.randint(i, (), generator=generator))
            order[i], order[j] = order[j], order[i]
        result[k] = clips[k][:, order]
    return result


def shuffled(order, axis=2):
    """A solution from the order that it draws along one axis for all: order(size, generator)."""
    return lambda clips, generator: clips.index_select(axis, order(clips.shape[axis], generator))


def moved(size, generator):
    while (order := torch.randperm(size, generator=generator)).eq(torch.arange(size)).any():
        pass
    return order


def each(change):
    """A solution from what it does to one clip [C, T, H, W]: change(clip, generator)."""
    return lambda clips, generator: torch.stack([change(clip, generator) for clip in clips])


def in_place(clips, generator):
    for clip in clips:
        clip[:] = clip[:, moved(clip.shape[1], generator)]
    return clips


def by_place(clips, generator):
    return clips.gather(2, torch.rand(clips.shape, generator=generator).argsort(dim=2))


def by_channel(clips, generator):
    order = torch.rand(clips.shape[:3], generator=generator).argsort(dim=2)
    return clips.gather(2, order[..., None, None].expand_as(clips))


def exchanged(clips, generator):
    clips = clips.clone()
    for clip in clips:
        i, j = torch.randperm(clips.shape[2], generator=generator)[:2].tolist()
        clip[:, [i, j]] = clip[:, [j, i]]
    return clips


def neighbours(clip, generator):
    order = torch.arange(clip.shape[1])
    start = int(torch.randint(2, (), generator=generator)) if clip.shape[1] % 2 else 0
    order[start : start + len(order) // 2 * 2] = (
        order[start : start + len(order) // 2 * 2].reshape(-1, 2).flip(1).flatten()
    )
    return clip[:, order]


test_shuffle = run_cases(
    ch14.check_shuffle,
    right=[by_trying, by_gather, by_choice, by_array],
    wrong={
        "one cycle through all": (by_sattolo, r"only 6 of the 9 .*\[1, 0, 3, 2\], for example, never does"),
        "randperm": (each(lambda x, g: x[:, torch.randperm(x.shape[1], generator=g)]), "stays at its place"),
        "anything but the identity": (
            each(
                lambda x, g: x[
                    :,
                    next(
                        o
                        for _ in range(99)
                        if (o := torch.randperm(x.shape[1], generator=g)).ne(torch.arange(x.shape[1])).any()
                    ),
                ]
            ),
            "stays at its place",
        ),
        "two exchanged": (exchanged, "stays at its place"),
        "one order for all": (shuffled(moved), "all clips have one order"),
        "the batch": (shuffled(moved, 0), "from one clip to another"),
        "rows": (shuffled(moved, 3), "not whole any more"),
        "axis 1": (each(lambda clip, g: clip[torch.arange(len(clip)).flip(0)]), "channels changed places"),
        "a channel's own order": (by_channel, "channels of one clip"),
        "a place's own order": (by_place, "put together of several"),
        "randint": (
            each(lambda x, g: x[:, torch.randint(x.shape[1], (x.shape[1],), generator=g)]),
            "twice",
        ),
        "rolled": (each(lambda x, g: x.roll(int(torch.randint(1, x.shape[1], (), generator=g)), 1)), "only rolled"),
        "neighbours exchanged": (each(neighbours), "all clips have one order"),
        "unseeded": (
            each(lambda x, g: x[:, moved(x.shape[1], None)]),
            "draws from the global generator",
        ),
        "python's random": (
            each(lambda x, g: x[:, random.sample(range(x.shape[1]), x.shape[1])]),
            "draws from the global generator",
        ),
        "a seed of its own": (
            lambda x, g: by_trying(x, torch.Generator().manual_seed(0)),
            "another seed gave the same",
        ),
        "nothing": (lambda clips, generator: clips.clone(), "as they stood"),
        "reversed": (lambda clips, generator: clips.flip(2), "one order"),
        "in place": (in_place, "changes the .* that it was given"),
        "the mean": (lambda x, g: x.float().mean(2, keepdim=True).expand(x.shape) + 0.25, "no clip holds"),
        "decimals": (lambda x, g: by_trying(x, g).float(), "in another type"),
        "one clip": (lambda x, g: by_trying(x, g)[0], r"\[2, 6, 7, 4\], expected \[5, 2, 6, 7, 4\]"),
        "no return": (lambda clips, generator: None, "None"),
    },
)

# ---- 14.5


def by_argsort(clips, share, generator):
    place = torch.rand(len(clips), clips.shape[2], generator=generator).argsort(1)
    return clips * (place >= round(share * clips.shape[2]))[:, None, :, None, None]


def by_randperm(clips, share, generator):
    result = clips.clone()
    for clip in result:
        gone = torch.randperm(clip.shape[1], generator=generator)[: round(share * clip.shape[1])]
        clip[:, gone] = 0
    return result


def by_topk(clips, share, generator):
    count = round(share * clips.shape[2])
    chosen = torch.rand(clips.shape[0], clips.shape[2], generator=generator).topk(count, dim=1).indices
    gone = torch.zeros(clips.shape[0], clips.shape[2], dtype=torch.bool).scatter(1, chosen, True)
    return clips.masked_fill(gone[:, None, :, None, None], 0)


def noise_at_once(clips, sigma, generator):
    noise = 255 * sigma * torch.randn(clips.shape, generator=generator)
    return (clips + noise).round().clamp(0, 255).to(torch.uint8)


def noise_by_clip(clips, sigma, generator):
    noisy = [clip.float() / 255 + torch.randn(clip.shape, generator=generator) * sigma for clip in clips]
    return (torch.stack(noisy) * 255).clamp(0, 255).round().byte()


def noise_by_normal(clips, sigma, generator):
    noise = torch.zeros(clips.shape).normal_(0, 1, generator=generator) * sigma * 255
    return torch.clamp(torch.round(clips.float() + noise), min=0, max=255).type(torch.uint8)


def drop_by_array(clips, share, generator):
    result = clips.numpy().copy()
    for clip in result:
        clip[:, torch.randperm(clip.shape[1], generator=generator).numpy()[: round(share * clip.shape[1])]] = 0
    return torch.from_numpy(result)


def noise_by_array(clips, sigma, generator):
    noisy = clips.numpy() + 255 * sigma * torch.randn(clips.shape, generator=generator).numpy()
    return torch.from_numpy(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def both(drop=by_argsort, noise=noise_at_once):
    return lambda: (drop, noise)


def check_both(solution):
    ch14.check_drop_and_noise(*solution())


def at_once():
    return by_argsort, noise_at_once


def clip_by_clip():
    return by_randperm, noise_by_clip


def other_functions():
    return by_topk, noise_by_normal


def by_arrays():
    return drop_by_array, noise_by_array


def dropped_in_place(clips, share, generator):
    for clip in clips:
        clip[:, torch.randperm(clip.shape[1], generator=generator)[: round(share * clip.shape[1])]] = 0
    return clips


def one_choice(clips, share, generator):
    result = clips.clone()
    result[:, :, torch.randperm(clips.shape[2], generator=generator)[: round(share * clips.shape[2])]] = 0
    return result


def random_rows(clips, share, generator):
    result = clips.clone()
    for clip in result:
        clip[:, :, torch.randperm(clip.shape[2], generator=generator)[:1]] = 0
    return result


def grown(change):
    """Noise with a change of its formula: change(clips, 255 * sigma, generator)."""
    return lambda clips, sigma, generator: change(clips, 255 * sigma, generator).clamp(0, 255).to(torch.uint8)


test_drop_and_noise = run_cases(
    check_both,
    right=[at_once, clip_by_clip, other_functions, by_arrays],
    wrong={
        "by chance": (
            both(lambda x, s, g: x * (torch.rand(len(x), x.shape[2], generator=g) >= s)[:, None, :, None, None]),
            "drop_slices: .*exact number",
        ),
        "the same for all": (both(one_choice), "drop_slices: .*draw them for each clip"),
        "kept and dropped exchanged": (
            both(lambda x, s, g: by_argsort(x, 1 - s, g)),
            "drop_slices: .*which is 3 in each clip; here it is 6",
        ),
        "voxels": (both(lambda x, s, g: x * (torch.rand(x.shape, generator=g) >= s)), "drop_slices: .*single voxels"),
        "rows": (both(random_rows), "drop_slices: .*single voxels, rows"),
        "cut out": (both(lambda x, s, g: x[:, :, : x.shape[2] - round(s * x.shape[2])]), "drop_slices: .*shape"),
        "the first ones": (
            both(
                lambda x, s, g: torch.cat((x[:, :, : round(s * x.shape[2])] * 0, x[:, :, round(s * x.shape[2]) :]), 2)
            ),
            "drop_slices: .*same choice",
        ),
        "decimals": (both(lambda x, s, g: by_argsort(x, s, g).float()), "drop_slices: .*keep the type"),
        "rounded down": (both(lambda x, s, g: by_argsort(x, int(s * 9) / 9, g)), "drop_slices: .*which is"),
        "dropped in place": (both(dropped_in_place), "drop_slices: .*changes the"),
        "no drop": (both(lambda x, s, g: None), "drop_slices: .*None"),
        "sigma of one": (
            both(noise=lambda x, s, g: (x + s * torch.randn(x.shape, generator=g)).round().clamp(0, 255).byte()),
            "add_noise: .*share of 255",
        ),
        "uniform": (
            both(noise=grown(lambda x, s, g: (x + s * torch.rand(x.shape, generator=g)).round())),
            "add_noise: .*only brightens",
        ),
        "clamped noise": (
            both(noise=lambda x, s, g: x + (255 * s * torch.randn(x.shape, generator=g)).round().clamp(0, 255).byte()),
            "add_noise: .*noise itself was clamped",
        ),
        "clamped normal numbers": (
            both(noise=grown(lambda x, s, g: (x + s * torch.randn(x.shape, generator=g).clamp(0, 1)).round())),
            "add_noise: .*noise itself was clamped",
        ),
        "uniform about zero": (
            both(noise=grown(lambda x, s, g: (x + s * 3.46 * (torch.rand(x.shape, generator=g) - 0.5)).round())),
            "add_noise: .*long tails",
        ),
        "no clamp": (
            both(
                noise=lambda x, s, g: (x + 255 * s * torch.randn(x.shape, generator=g)).round().to(torch.int64).byte()
            ),
            "add_noise: .*other end",
        ),
        "noise as uint8": (
            both(
                noise=lambda x, s, g: x + (255 * s * torch.randn(x.shape, generator=g)).round().to(torch.int64).byte()
            ),
            "add_noise: .*other end",
        ),
        "one number a clip": (
            both(noise=grown(lambda x, s, g: (x + s * torch.randn(len(x), 1, 1, 1, 1, generator=g)).round())),
            "add_noise: ",
        ),
        "the same in every frame": (
            both(noise=grown(lambda x, s, g: (x + s * torch.randn(x[:, :, :1].shape, generator=g)).round())),
            "add_noise: every frame",
        ),
        "cut off": (
            both(noise=grown(lambda x, s, g: x + s * torch.randn(x.shape, generator=g))),
            "add_noise: .*round first",
        ),
        "decimals of noise": (
            both(noise=lambda x, s, g: (x + 255 * s * torch.randn(x.shape, generator=g)).clamp(0, 255)),
            "add_noise: .*expected uint8",
        ),
        "the root of sigma": (
            both(noise=lambda x, s, g: noise_at_once(x, s**0.5, g)),
            "add_noise: .*standard deviation",
        ),
        "no generator": (
            both(noise=lambda x, s, g: (x + 255 * s * torch.randn(x.shape)).round().clamp(0, 255).byte()),
            "add_noise: .*global generator",
        ),
    },
)

# ---- 14.6


def by_masks(labels, answers, permutation):
    other = torch.tensor(permutation)[labels]
    counted = (other != labels) & ((answers == labels) | (answers == other))
    return (answers[counted] == other[counted]).float().mean().item()


def by_counting(labels, answers, permutation):
    right = wrong = 0
    for y, a in zip(labels.tolist(), answers.tolist()):
        if permutation[y] != y:
            right += a == y
            wrong += a == permutation[y]
    return wrong / (right + wrong)


def by_sums(labels, answers, permutation):
    swap = torch.tensor(permutation)
    sided = swap[labels] != labels
    confused = (swap[answers] == labels) & sided  # a swap is its own inverse
    return confused.sum() / (confused | ((answers == labels) & sided)).sum()


def by_arrays_of_answers(labels, answers, permutation):
    y, a = labels.numpy(), answers.numpy()
    other = np.array(permutation)[y]
    return (a == other)[(other != y) & ((a == y) | (a == other))].mean()


def counted(share):
    """A solution from its last line: share(other, sided, labels, answers), the first two bool [B]."""

    def solution(labels, answers, permutation):
        swap = torch.tensor(permutation)
        return share(answers == swap[labels], swap[labels] != labels, labels, answers)

    return solution


def changed(labels, answers, permutation):
    share = by_masks(labels, answers, permutation)
    labels[:] = 0
    return share


test_wrong_side = run_cases(
    ch14.check_wrong_side,
    right=[by_masks, by_counting, by_sums, by_arrays_of_answers],
    wrong={
        "of all sided clips": (counted(lambda o, s, y, a: o[s].float().mean()), "organ was not found"),
        "of all clips": (counted(lambda o, s, y, a: (o & s).float().mean()), "of all clips"),
        "every wrong answer": (counted(lambda o, s, y, a: (a != y)[s].float().mean()), "every wrong answer"),
        "without a side": (counted(lambda o, s, y, a: o[o | (a == y)].float().mean()), "without a side were counted"),
        "among wrong answers": (counted(lambda o, s, y, a: o[s & (a != y)].float().mean()), "among sided clips"),
        "the right side": (counted(lambda o, s, y, a: (a == y)[s & (o | (a == y))].float().mean()), "the right side"),
        "what is left": (
            counted(lambda o, s, y, a: 1 - o[s & (o | (a == y))].float().mean()),
            "share on the right side",
        ),
        "by the right ones": (
            counted(lambda o, s, y, a: (o & s).sum() / ((a == y) & s).sum()),
            "divide by both together",
        ),
        "sums without a side": (
            counted(lambda o, s, y, a: o.sum() / (o.sum() + (a == y).sum())),
            "as right and as wrong at once",
        ),
        "the tuple indexed": (
            lambda y, a, p: (a == p[y]).float().mean(),
            "make it a tensor first(?s:(?!notebook's sizes).)*$",
        ),
        "a number": (counted(lambda o, s, y, a: (o & s).sum()), "number of clips"),
        "by all found": (counted(lambda o, s, y, a: (o & s).sum() / (o | (a == y)).sum()), "without a side, too"),
        "how often found": (counted(lambda o, s, y, a: (o | (a == y))[s].float().mean()), "whose organ was found"),
        "an answer with a side": (
            lambda y, a, p: by_sided_answer(y, a, torch.tensor(p)),
            "not yet the right organ",
        ),
        "per cent": (lambda *given: 100 * by_masks(*given), "(is|are) wrong: found"),
        "whole division": (
            counted(lambda o, s, y, a: (o & s).sum() // (s & (o | (a == y))).sum()),
            "(is|are) wrong: found 0",
        ),
        "the notebook's pairs": (
            lambda y, a, p: by_masks(y, a, (0, 2, 1, 4, 3, 5)),
            "(is|are) wrong|IndexError|number of|right side",
        ),
        "each clip": (counted(lambda o, s, y, a: o[s & (o | (a == y))]), "numbers, expected one"),
        "in place": (changed, "changes the .* that it was given"),
        "no return": (lambda *_: None, "None"),
    },
)


def by_sided_answer(labels, answers, swap):
    other, both_sided = swap[labels], (swap[labels] != labels) & (swap[answers] != answers)
    return (answers == other)[both_sided].float().mean()


# ---- 14.8


def by_isin(patients, share, steps, batch_size, generator):
    everyone = patients.unique()
    count = max(1, round(share * len(everyone)))
    chosen = everyone[torch.randperm(len(everyone), generator=generator)[:count]]
    clips = torch.isin(patients, chosen).nonzero().flatten()
    stream = torch.empty(0, dtype=torch.int64)
    while len(stream) < steps * batch_size:
        stream = torch.cat((stream, clips[torch.randperm(len(clips), generator=generator)]))
    return stream[: steps * batch_size].view(steps, batch_size)


def by_lists(patients, share, steps, batch_size, generator):
    owners = patients.tolist()
    everyone = sorted(set(owners))
    order = torch.randperm(len(everyone), generator=generator).tolist()
    chosen = {everyone[i] for i in order[: max(1, round(share * len(everyone)))]}
    clips = [i for i, owner in enumerate(owners) if owner in chosen]
    batches, waiting = [], []
    for _ in range(steps):
        while len(waiting) < batch_size:
            waiting += [clips[i] for i in torch.randperm(len(clips), generator=generator).tolist()]
        batches.append(waiting[:batch_size])
        waiting = waiting[batch_size:]
    return torch.tensor(batches)


def by_rand(patients, share, steps, batch_size, generator):
    everyone, of_clip = patients.unique(return_inverse=True)
    rank = torch.rand(len(everyone), generator=generator).argsort().argsort()
    clips = (rank[of_clip] < max(1, round(share * len(everyone)))).nonzero().squeeze(1)
    passes = (steps * batch_size + len(clips) - 1) // len(clips)
    order = torch.rand(passes, len(clips), generator=generator).argsort(dim=1)
    return clips[order].flatten()[: steps * batch_size].reshape(steps, batch_size)


def by_whole_arrays(patients, share, steps, batch_size, generator):
    owners = patients.numpy()
    everyone = np.unique(owners)
    order = torch.randperm(len(everyone), generator=generator).numpy()
    clips = np.flatnonzero(np.isin(owners, everyone[order[: max(1, round(share * len(everyone)))]]))
    stream = []
    while len(stream) < steps * batch_size:
        stream.extend(clips[torch.randperm(len(clips), generator=generator).numpy()])
    return torch.from_numpy(np.array(stream[: steps * batch_size]).reshape(steps, batch_size))


def sampler(choose=None, stream=None):
    """The sampler with one part written otherwise: choose(patients, share, generator) -> clips, or
    stream(clips, count, generator)."""

    def whole(patients, share, generator):
        everyone = patients.unique()
        count = max(1, round(share * len(everyone)))
        return (
            torch.isin(patients, everyone[torch.randperm(len(everyone), generator=generator)[:count]])
            .nonzero()
            .flatten()
        )

    def passes(clips, count, generator):
        return torch.cat(
            [clips[torch.randperm(len(clips), generator=generator)] for _ in range(count // len(clips) + 1)]
        )

    def solution(patients, share, steps, batch_size, generator):
        clips = (choose or whole)(patients, share, generator)
        found = (stream or passes)(clips, steps * batch_size, generator)
        return found[: steps * batch_size].reshape(steps, batch_size)

    return solution


def one_order(clips, count, generator):
    return clips[torch.randperm(len(clips), generator=generator)].repeat(count // len(clips) + 1)


def second_again(clips, count, generator):
    first, second = (clips[torch.randperm(len(clips), generator=generator)] for _ in range(2))
    return torch.cat((first, *[second] * (count // len(clips))))


def grouped(patients, share, steps, batch_size, generator):
    everyone = patients.unique()
    everyone = everyone[torch.randperm(len(everyone), generator=generator)[: max(1, round(share * len(everyone)))]]
    stream = []
    while len(stream) < steps * batch_size:
        for k in torch.randperm(len(everyone), generator=generator):
            clips = (patients == everyone[k]).nonzero().flatten()
            stream += clips[torch.randperm(len(clips), generator=generator)].tolist()
    return torch.tensor(stream[: steps * batch_size]).reshape(steps, batch_size)


def two_orders(clips, count, generator):
    both_orders = [clips[torch.randperm(len(clips), generator=generator)] for _ in range(2)]
    return torch.cat(both_orders * (count // len(clips) + 1))


def while_short(clips, count, generator):
    stream = []
    while len(stream) * len(clips) < count:
        stream.append(clips[torch.randperm(len(clips), generator=generator)])
    return torch.cat(stream)


def without_keeping(clips, count, generator):
    stream = clips[:0]
    while len(stream) < count:
        torch.cat([stream, clips[torch.randperm(len(clips), generator=generator)]])
    return stream


def at_least_one_pass(clips, count, generator):
    passes = count // max(1, len(clips)) + 1
    return torch.cat([clips[torch.randperm(len(clips), generator=generator)] for _ in range(passes)])


def patients_by(draw):
    """All clips of the patients that are drawn: draw(patients, how many there are, share, generator)."""

    def choose(patients, share, generator):
        return torch.isin(patients, draw(patients, len(patients.unique()), share, generator)).nonzero().flatten()

    return choose


def first_patients(patients, share, generator):
    everyone = patients.unique()
    return torch.isin(patients, everyone[: max(1, round(share * len(everyone)))]).nonzero().flatten()


def one_more(patients, share, generator):
    everyone = patients.unique()
    chosen = everyone[torch.randperm(len(everyone), generator=generator)[: int(share * len(everyone)) + 1]]
    return torch.isin(patients, chosen).nonzero().flatten()


def some_clips(patients, share, generator):
    return torch.randperm(len(patients), generator=generator)[: max(1, round(share * len(patients)))]


def half_patients(patients, share, generator):
    everyone = patients.unique()
    chosen = everyone[torch.randperm(len(everyone), generator=generator)[: max(1, round(share * len(everyone)))]]
    return torch.cat([(patients == patient).nonzero().flatten()[:2] for patient in chosen])


test_equal_steps = run_cases(
    ch14.check_equal_steps,
    right=[by_isin, by_lists, by_rand, by_whole_arrays],
    wrong={
        "clips instead of patients": (sampler(some_clips), "of 6 to 7 of .*draw patients.*nearly everybody"),
        "the first patients": (sampler(first_patients), "every seed chooses the same|same patients"),
        "rounded up": (sampler(one_more), r"of 4 of the 7 patients turn up; .* 0.45 is 3: max\(1, round"),
        "ceil": (
            sampler(lambda p, share, g: by_share(p, math.ceil(share * len(p.unique())), g)),
            r"of 4 of the 7 patients turn up; .* 0.45 is 3: max\(1, round",
        ),
        "cut off": (
            sampler(lambda p, share, g: by_share(p, max(1, int(share * len(p.unique()))), g)),
            r"of 5 of the 7 patients turn up; .* 0.8 is 6: max\(1, round",
        ),
        "a share of the clips": (
            sampler(lambda p, share, g: by_share(p, max(1, round(share * len(p))), g)),
            "of 7 of the 7 .*P counts the different patients",
        ),
        "numbers that no patient has": (
            sampler(patients_by(lambda p, n, share, g: torch.randperm(301, generator=g)[: max(1, round(share * 301))])),
            "with every seed: .*numbers have gaps|patients.unique",
        ),
        "drawn from all clips' patients": (
            sampler(patients_by(lambda p, n, share, g: p[torch.randperm(35, generator=g)[: max(1, round(share * n))]])),
            "with every seed: .*repeats each",
        ),
        "a share of all clips' patients": (
            sampler(patients_by(lambda p, n, share, g: p[torch.randperm(35, generator=g)[: round(share * 35)]])),
            "of 6 to 7 of .*with every seed: .*repeats each",
        ),
        "patients with replacement": (
            sampler(patients_by(lambda p, n, share, g: p.unique()[torch.randint(n, (round(share * n),), generator=g)])),
            "with every seed: .*none of them twice",
        ),
        "places for numbers": (
            sampler(patients_by(lambda p, n, share, g: torch.randperm(n, generator=g)[: round(share * n)])),
            "none of the clips was chosen: .*not for their places",
        ),
        "places for numbers, without end": (
            sampler(
                patients_by(lambda p, n, share, g: torch.randperm(n, generator=g)[: round(share * n)]), while_short
            ),
            "loop does not end: .*none of the clips was chosen",
        ),
        "none for a small share": (
            sampler(lambda p, share, g: by_share(p, round(share * len(p.unique())), g)),
            "your code raised ZeroDivisionError.*no patient was drawn",
        ),
        "none, reshaped": (
            sampler(lambda p, share, g: by_share(p, round(share * len(p.unique())), g), at_least_one_pass),
            "input of size 0.*no patient was drawn(?s:(?!notebook's sizes).)*$",
        ),
        "none, without end": (
            sampler(lambda p, share, g: by_share(p, round(share * len(p.unique())), g), while_short),
            "loop does not end: .*no patient was drawn",
        ),
        "passes that are not kept": (sampler(stream=without_keeping), "loop does not end: no pass is added"),
        "at most two clips of each": (sampler(half_patients), "never turn up"),
        "with replacement": (
            sampler(stream=lambda clips, count, g: clips[torch.randint(len(clips), (count,), generator=g)]),
            "others never: .*before any comes again",
        ),
        "one order": (sampler(stream=one_order), "same order in every pass"),
        "patient after patient": (grouped, "one patient follow each other"),
        "the second order again": (sampler(stream=second_again), "same order in passes 2 and 3"),
        "two orders in turn": (sampler(stream=two_orders), "same order in passes 1 and 3"),
        "unshuffled": (
            sampler(stream=lambda clips, count, g: clips.repeat(count // len(clips) + 1)),
            "in their own order|same order",
        ),
        "one pass": (
            sampler(stream=lambda clips, count, g: clips[torch.randperm(len(clips), generator=g)]),
            "your code raised.*44 indices are needed: add passes(?s:(?!notebook's sizes).)*$",
        ),
        "nothing cut off": (
            lambda p, share, steps, size, g: by_isin(p, share, steps + 2, size, g).flatten().view(steps, size),
            "44 indices are needed: .*cut off the rest",
        ),
        "patients' numbers": (
            lambda p, share, steps, size, g: p[by_isin(p, share, steps, size, g)],
            "places in `patients`",
        ),
        "a list of batches": (lambda *given: list(by_isin(*given)), "reshape the stream"),
        "flat": (lambda *given: by_isin(*given).flatten(), "shape"),
        "transposed": (lambda *given: by_isin(*given).T, "shape"),
        "decimals": (lambda *given: by_isin(*given).float(), "int64"),
        "everybody": (lambda p, share, *rest: by_isin(p, 1.0, *rest), "of 7 of the 7 patients turn up; .* is 3: max"),
        "no return": (lambda *given: None, "None"),
    },
)


def by_share(patients, count, generator):
    everyone = patients.unique()
    chosen = everyone[torch.randperm(len(everyone), generator=generator)[:count]]
    return torch.isin(patients, chosen).nonzero().flatten()


# ---- 14.7


def with_copy(probe, clips):
    before = clips.clone()
    after = probe(clips)
    if after.shape != before.shape or after.dtype != before.dtype:
        return False
    return torch.equal(clips, before) and all(not torch.equal(a, b) for a, b in zip(after, before))


def on_a_copy(probe, clips):
    given = clips.clone()
    after = probe(given)
    same_form = (after.shape, after.dtype) == (clips.shape, clips.dtype)
    return bool(same_form and (given == clips).all() and (after != clips).flatten(1).any(1).all())


def by_amax(probe, clips):
    before = clips.detach().clone()
    after = probe(clips)
    if after.dtype is not before.dtype or list(after.shape) != list(before.shape):
        return torch.tensor(False)
    moved = (after.double() - before.double()).abs().amax(dim=(1, 2, 3, 4)) > 0
    return moved.all() & (clips == before).all()


def by_array_of_clips(probe, clips):
    before = clips.numpy().copy()
    after = probe(clips).numpy()
    if after.shape != before.shape or after.dtype != before.dtype:
        return False
    return np.array_equal(clips.numpy(), before) and (after != before).reshape(len(after), -1).any(axis=1).all()


def judged(verdict):
    """A test that compares with a copy: verdict(before, after, the clips afterwards)."""

    def solution(probe, clips):
        before = clips.clone()
        after = probe(clips)
        return bool(verdict(before, after, clips))

    return solution


def same_form(before, after):
    return after.shape == before.shape and after.dtype == before.dtype


test_changes_clips = run_cases(
    ch14.check_changes_clips,
    right=[with_copy, on_a_copy, by_amax, by_array_of_clips],
    wrong={
        "compared with its argument": (
            lambda probe, x: not torch.equal(probe(x), x),
            "with itself|You|you said",
        ),
        "any clip": (
            judged(lambda b, a, x: same_form(b, a) and torch.equal(b, x) and (a != b).any()),
            "last clip alone",
        ),
        "every voxel": (
            judged(lambda b, a, x: same_form(b, a) and torch.equal(b, x) and (a != b).all()),
            "backwards: you said False",
        ),
        "the last clip": (
            judged(lambda b, a, x: same_form(b, a) and torch.equal(b, x) and (a[-1] != b[-1]).any()),
            "last clip alone|first clip",
        ),
        "the first clip": (
            judged(lambda b, a, x: same_form(b, a) and torch.equal(b, x) and (a[0] != b[0]).any()),
            "first clip alone",
        ),
        "objects": (lambda probe, x: probe(x) is not x, "compare values"),
        "the argument may change": (
            judged(lambda b, a, x: same_form(b, a) and (a != b).flatten(1).any(1).all()),
            "in place",
        ),
        "shapes are not compared": (
            judged(lambda b, a, x: torch.equal(b, x) and (a != b).flatten(1).any(1).all()),
            "a probe that loses the last frame, so compare the shapes(?s:(?!notebook's sizes).)*$",
        ),
        "types are not compared": (
            judged(lambda b, a, x: a.shape == b.shape and torch.equal(b, x) and (a != b).flatten(1).any(1).all()),
            "another dtype",
        ),
        "by the mean": (
            judged(lambda b, a, x: same_form(b, a) and torch.equal(b, x) and bool(a.float().mean() - b.float().mean())),
            "you said False",
        ),
        "always": (lambda probe, x: True, "you said True"),
        "never": (lambda probe, x: False, "backwards: you said False"),
        "nearly equal is equal": (
            judged(
                lambda b, a, x: (
                    same_form(b, a)
                    and torch.equal(b, x)
                    and all(not torch.allclose(p.float(), q.float(), atol=0.01) for p, q in zip(a, b))
                )
            ),
            "compare exactly",
        ),
        "each clip's verdict": (lambda probe, x: (probe(x) != x).flatten(1).any(1), "True or False"),
        "no return": (lambda probe, x: None, "None"),
    },
)


# ---- what the text says of recorded runs


def of_row(table, name):
    rows = recorded(table)["rows"]
    exact = [row for row in rows if row["row"] == name]
    return (exact or [row for row in rows if name in row["row"]])[0]["test"]


def test_the_two_experiments_of_the_beginning():
    short = "all_models_organphantom3d.json"
    cnn, vivit = of_row(short, "cnn3d")["acc"], of_row(short, "spacetime")["acc"]
    assert (round(cnn["mean"], 3), round(cnn["sd"], 3)) == (0.643, 0.030)
    assert (round(vivit["mean"], 3), round(vivit["sd"], 3)) == (0.438, 0.015)
    long = of_row("recipe_organphantom3d.json", "quick")["acc"]
    assert (round(long["mean"], 3), round(long["sd"], 3), len(long["runs"])) == (0.898, 0.005, 5)


def plateau(figure):
    """Of each model, a figure of each seed at the plateau on the phantom."""
    return {row["row"]: figure(row)["runs"] for row in recorded("plateau_organphantom3d.json")["rows"]}


def test_what_is_said_of_the_plateau_on_the_phantom():
    test, val = (plateau(lambda row: row[split]["acc"]) for split in ("test", "val"))  # noqa: B023
    means = {name: np.mean(runs) for name, runs in test.items()}
    assert set(test) == set(MODELS) and {len(runs) for runs in test.values()} == {3}
    assert not decided(test["cnn3d"], test["spacetime"]) and 0.015 < means["cnn3d"] - means["spacetime"] < 0.034
    assert (
        decided(val["cnn3d"], val["spacetime"]) and round(np.mean(val["cnn3d"]) - np.mean(val["spacetime"]), 2) == 0.07
    )
    level = ("cnn3d", "cnn_attention", "factorised_self_attention", "factorised_dot_product")
    assert all(0.895 < means[name] < 0.91 for name in level)
    best = [
        max((name for name in val if (name in VIVITS) == family), key=lambda name: np.mean(val[name]))
        for family in (True, False)
    ]
    assert best == ["factorised_dot_product", "cnn3d"] and not decided(*(test[name] for name in best)), "verdict A"
    assert [round(means[name], 2) for name in ("single_frame", "slow_fusion")] == [0.83, 0.89]
    beaten = ("late_fusion", "single_frame", "early_fusion")
    assert [decided(test["slow_fusion"], test[name]) for name in beaten] == [True, True, False], "verdict D"
    quoted = {name: (round(means[name], 3), round(np.std(test[name], ddof=1), 3)) for name in (*best, *beaten)}
    assert [*quoted.values()] == [(0.904, 0.012), (0.907, 0.018), (0.858, 0.011), (0.829, 0.01), (0.86, 0.017)]


def test_what_is_said_of_learning_fast():
    rows = {row["row"]: row for row in recorded("plateau_organphantom3d.json")["rows"]}
    curves = {name: comparisons.in_hand(row) for name, row in rows.items()}
    needed = {name: [time_to_share(run, [32] * len(run)) for run in runs] for name, (runs, _) in curves.items()}
    fastest = sorted(needed, key=lambda name: np.mean(needed[name]))[:3]
    assert fastest == ["slow_fusion", "cnn_attention", "cnn3d"]
    assert not decided(needed["cnn3d"], needed["spacetime"])
    seconds = {name: np.mean(needed[name]) * curves[name][1] for name in needed}
    assert (
        min(seconds, key=seconds.get) == "single_frame" and 9 < seconds["cnn_attention"] / seconds["single_frame"] < 11
    )
    assert sorted(seconds, key=seconds.get)[-2:] == ["slow_fusion", "cnn_attention"]
    ends = [np.mean(runs[:, -1]) for runs, _ in curves.values()]
    assert (round(min(ends), 2), round(max(ends), 2)) == (0.81, 0.92)
    tenth = {name: np.mean(runs[:, 9]) for name, (runs, _) in curves.items()}
    assert sorted(tenth, key=tenth.get)[-3:] == ["cnn_attention", "cnn3d", "slow_fusion"]
    assert max(abs(tenth[one] - tenth[other]) for one in VIVITS for other in VIVITS) < 0.05
    assert all(found["stopped"] for row in rows.values() for found in row["plateau"]), "none ran out of epochs"
    chosen = {name: min(zip(row["rates"]["val_loss"], row["rates"]["lr"]))[1] for name, row in rows.items()}
    assert all(chosen[name] == 3e-3 for name in VIVITS) and [*chosen.values()].count(3e-3) == 8
    assert {name: chosen[name] for name in HUNGER_RATES} == HUNGER_RATES


def test_what_is_said_of_probes_at_the_plateau():
    found = {
        probe: {name: np.mean(runs) for name, runs in plateau(lambda row: row["probes"][probe]).items()}  # noqa: B023
        for probe in (*CHANGES, "mirrored", "wrong side, organ found")
    }
    lost = {
        probe: {name: found["unchanged"][name] - value for name, value in of.items()} for probe, of in found.items()
    }
    low = {name for name, value in found["noise"].items() if value < 0.5}
    assert low == {"single_frame", "late_fusion", "multiresolution", "cnn_attention"}
    assert min(found["noise"][name] for name in set(MODELS) - low) > 0.6
    assert min(found["noise"][name] for name in VIVITS) > 0.8
    hit = ("early_fusion", "late_fusion", "slow_fusion", "cnn3d")
    assert min(lost["reversed"][name] for name in hit) > max(lost["reversed"][name] for name in VIVITS)
    third_and_fourth = ("factorised_self_attention", "factorised_dot_product")
    assert all(abs(lost["shuffled"][name] - lost["shuffled"]["cnn3d"]) < 0.03 for name in third_and_fourth)
    cnns = set(MODELS) - set(VIVITS)
    assert min(lost["frozen"][name] for name in third_and_fourth) > max(lost["frozen"][name] for name in cnns)
    assert all(0.4 < found["frozen"][name] / found["unchanged"][name] < 0.6 for name in third_and_fourth)
    assert lost["shuffled"]["cnn_attention"] < 0.05 and abs(lost["missing"]["cnn_attention"]) < 0.02
    assert all(round(lost["missing"][name], 2) == 0.26 for name in ("early_fusion", "late_fusion"))
    assert max(map(abs, lost["mirrored"].values())) < 0.025 and max(found["wrong side, organ found"].values()) < 0.105


def test_what_is_said_of_the_moving_shapes():
    rows = comparisons.by_model(recorded("plateau_movingshapes.json"))
    test, val = ({name: row[split]["acc"]["runs"] for name, row in rows.items()} for split in ("test", "val"))  # noqa: B023
    means = {name: np.mean(runs) for name, runs in test.items()}
    assert set(test) == set(MODELS) and {len(runs) for runs in test.values()} == {3}
    best = [
        max((name for name in val if (name in VIVITS) == family), key=lambda name: np.mean(val[name]))
        for family in (True, False)
    ]
    assert best == ["factorised_dot_product", "cnn3d"] and not decided(*(test[name] for name in best)), "verdict A"
    assert best[0] == max(means, key=means.get) and round(max(test["cnn3d"]), 3) == 0.998
    beaten = ("late_fusion", "single_frame", "early_fusion")
    assert [decided(test["slow_fusion"], test[name]) for name in beaten] == [False, True, False], "verdict D"
    assert means["early_fusion"] > means["slow_fusion"]
    names = (*best, "slow_fusion", *beaten)
    quoted = [(round(means[name], 3), round(np.std(test[name], ddof=1), 3)) for name in names]
    assert quoted == [(0.983, 0.005), (0.908, 0.078), (0.865, 0.028), (0.822, 0.086), (0.449, 0.014), (0.877, 0.009)]
    assert (
        max(means[name] for name in ("single_frame", "multiresolution")) < 0.5
        and round(means["cnn_attention"], 2) == 0.5
    )
    assert (round(min(test["late_fusion"]), 2), round(max(test["late_fusion"]), 2)) == (0.76, 0.92)
    rates = {name: min(zip(row["rates"]["val_loss"], row["rates"]["lr"]))[1] for name, row in rows.items()}
    largest = {name for name, rate in rates.items() if rate == 3e-3}
    assert largest == {*VIVITS, "late_fusion", "multiresolution"}
    assert {name: rates[name] for name in PATIENCE_RATES} == PATIENCE_RATES


def test_what_is_said_of_each_run_on_the_moving_shapes():
    rows = comparisons.by_model(recorded("plateau_movingshapes.json"))
    arrived = {name: sum(run > 0.97 for run in row["test"]["acc"]["runs"]) for name, row in rows.items()}
    assert {name: count for name, count in arrived.items() if count} == {
        "spacetime": 1,
        "factorised_self_attention": 2,
        "factorised_dot_product": 3,
        "cnn3d": 1,
    }
    assert sum(not run["stopped"] for row in rows.values() for run in row["plateau"]) == 3
    late = rows["cnn3d"]["history"]["val_acc"][1]
    on_the_step = [epoch for epoch, accuracy in enumerate(late) if 0.86 < accuracy < 0.92]
    assert on_the_step[-1] - on_the_step[0] > 50 and late[-1] > 0.99
    climbers = [name for name in rows if max(rows[name]["val"]["acc"]["runs"]) > 0.86 and name != "late_fusion"]
    assert len(climbers) == 7
    for name in climbers:  # the curve of each halts at 7/8: six epochs in a row within two points of it
        for curve in rows[name]["history"]["val_acc"]:
            near = [abs(accuracy - 0.875) < 0.026 for accuracy in curve]
            assert any(all(near[k : k + 6]) for k in range(len(near))), name


def test_what_is_said_of_the_adrenal_glands():
    rows = comparisons.by_model(recorded("plateau_adrenalmnist3d.json"))
    test, val = ({name: row[split]["auc"]["runs"] for name, row in rows.items()} for split in ("test", "val"))  # noqa: B023
    means = {name: np.mean(runs) for name, runs in test.items()}
    assert {name: len(runs) for name, runs in test.items()} == {name: 3 for name in MODELS} | {"cnn_attention": 1}
    best = [
        max((name for name in val if (name in VIVITS) == family), key=lambda name: np.mean(val[name]))
        for family in (True, False)
    ]
    assert best == ["factorised_encoder", "slow_fusion"] and decided(*(test[name] for name in best)), "verdict A"
    assert max((means[name], name) for name in VIVITS)[1] == "factorised_dot_product"
    assert max(max(runs) for name, runs in test.items() if name in VIVITS) < min(test["slow_fusion"])
    beaten = ("late_fusion", "single_frame", "early_fusion")
    assert all(decided(test["slow_fusion"], test[name]) for name in beaten), "verdict D"
    quoted = [(round(means[name], 3), round(np.std(test[name], ddof=1), 3)) for name in (*best, *beaten[1:])]
    assert quoted == [(0.834, 0.007), (0.898, 0.005), (0.698, 0.044), (0.846, 0.004)]
    blind = {name for name, row in rows.items() if max(row["test"]["acc"]["runs"]) < 0.77}
    assert blind == {"late_fusion", "single_frame", "multiresolution"}, "they call nearly every gland normal"
    assert {round(run, 2) for run in test["late_fusion"]} == {0.49}
    assert all(run["stopped"] for row in rows.values() for run in row["plateau"]), "none ran out of epochs"
    largest = {name for name, row in rows.items() if comparisons.chosen_rate(row) == 3e-3}
    assert largest == set(VIVITS) - {"spacetime"}
    fourth, volume = test["factorised_dot_product"], test["cnn3d"]
    assert not decided(fourth, volume)
    quoted = [(round(np.mean(runs), 3), round(np.std(runs, ddof=1), 3)) for runs in (fourth, volume)]
    assert quoted == [(0.861, 0.011), (0.88, 0.013)]
    full = of_row("recipe_adrenalmnist3d.json", "preset full: longer, with more decay")["auc"]
    assert (round(full["mean"], 3), round(full["sd"], 3)) == (0.865, 0.006)
    closed = (full["mean"] - means["factorised_encoder"]) / (means["slow_fusion"] - means["factorised_encoder"])
    assert 0.45 < closed < 0.55, "about half of the gap"


def test_the_table_of_the_benchmarks_is_that_of_the_records():
    text = (checkout() / "notebooks" / "results" / "benchmarks.md").read_text(encoding="utf-8")
    score = {"organphantom3d": "acc", "movingshapes": "acc", "adrenalmnist3d": "auc"}
    rows = {dataset: comparisons.by_model(recorded(f"plateau_{dataset}.json")) for dataset in score}
    for name in MODELS:
        title = comparisons.title_of(name) if name in VIVITS else f"`{name}`"
        cells = []
        for dataset, key in score.items():
            runs = rows[dataset][name]["test"][key]["runs"]
            more = "" if len(runs) == 3 else f" ({len(runs)} seed{'s' * (len(runs) > 1)})"
            cells.append(mean_sd(rows[dataset][name]["test"][key]) + more)
        assert f"| {title} | {' | '.join(cells)} |" in text, name


def test_models_1_and_2_are_not_told_apart():
    for dataset in ("organphantom3d", "movingshapes", "adrenalmnist3d"):  # chapter 01 says so
        rows = comparisons.by_model(recorded(f"plateau_{dataset}.json"))
        key = "auc" if dataset == "adrenalmnist3d" else "acc"
        assert not decided(*(rows[name]["test"][key]["runs"] for name in ("spacetime", "factorised_encoder")))


def test_late_fusion_sees_no_gland(test_data):
    volumes = load_volumes("adrenalmnist3d", root=test_data)
    first, second = late_fusion(28)[0]
    seen = (volumes.train.clips[:, 0] > 0).flatten(2).any(dim=2)  # [B, T]
    assert (first, second) == (4, 23)
    assert round((seen[:, first] | seen[:, second]).double().mean().item(), 2) == 0.02
    assert seen[:, 14].double().mean() > 0.999 and len(volumes.train) == 1188 and len(volumes.val) == 98
    assert 0.75 < (volumes.test.labels == 0).double().mean() < 0.78, "three in four are normal"


def test_what_is_said_of_hunger():
    record = recorded("hunger_organphantom3d.json")
    found = comparisons.by_share(record)
    assert set(found) == set(HUNGER_RATES) and all([*models] == [5, 10, 25, 50, 100] for models in found.values())
    assert all(run["stopped"] for row in record["rows"] for run in row["plateau"]), "none ran out of epochs"
    means = {name: {share: np.mean(runs) for share, runs in shares.items()} for name, shares in found.items()}
    for share in (10, 25, 50):
        ahead = np.subtract(found["spacetime"][share], found["early_fusion"][share])
        assert decided(found["spacetime"][share], found["early_fusion"][share])
        assert ahead.min() > 0
    kept, last, epochs = {}, {}, {}
    for row in record["rows"]:
        best = [run["best_epoch"] for run in row["plateau"]]
        accuracies = row["history"]["val_acc"]
        kept[row["row"]] = np.mean([run[epoch - 1] for run, epoch in zip(accuracies, best)])
        last[row["row"]] = np.mean([run[-1] for run in accuracies])
        epochs[row["row"]] = best
    few = [name for name in kept if name.startswith("5 %,")]
    assert all(0.06 < last[name] - kept[name] < 0.1 for name in few)
    assert all(abs(last[name] - kept[name]) < 0.025 for name in kept if name.split(" ")[0] in ("25", "50", "100"))
    assert (min(min(epochs[name]) for name in few), max(max(epochs[name]) for name in few)) == (5, 11)
    lost = {name: round(100 * (shares[100] - shares[5])) for name, shares in means.items()}
    assert lost == {"spacetime": 34, "factorised_encoder": 37, "cnn3d": 37, "early_fusion": 41}
    for share in (5, 10, 25, 50):
        ahead = np.subtract(found["spacetime"][share], found["cnn3d"][share])
        assert abs(ahead.mean()) < 2 * ahead.std(ddof=1), "verdict E"
        assert not decided(found["spacetime"][share], found["cnn3d"][share])
    few = [(round(means[name][5], 3), round(np.std(found[name][5], ddof=1), 3)) for name in ("spacetime", "cnn3d")]
    assert few == [(0.545, 0.064), (0.54, 0.044)]
    all_of_them = plateau(lambda row: row["test"]["acc"])
    assert all(shares[100] == all_of_them[name] for name, shares in found.items()), "the same runs as the plateau's"


def test_what_is_said_of_starts():
    images, cnn = (comparisons.by_share(recorded(f"{name}_organphantom3d.json")) for name in ("images", "images_cnn"))
    pairs = (
        (images["tubelets, filter inflation"], images["nothing pretrained"]),
        (
            cnn["filter inflation"],
            cnn["nothing pretrained"],
        ),
    )
    quoted = [(round(np.mean(runs[5]), 3), round(np.std(runs[5], ddof=1), 3)) for pair in pairs for runs in pair]
    assert quoted == [(0.672, 0.077), (0.374, 0.075), (0.881, 0.026), (0.446, 0.026)]
    assert all(decided(lifted[share], nothing[share]) for lifted, nothing in pairs for share in (5, 25, 100))
    for table, start, quoted in (
        (images, "tubelets, filter inflation", ((0.89, 0.01), (0.75, 0.014))),
        (cnn, "filter inflation", ((0.921, 0.005), (0.875, 0.005))),
    ):
        lifted, longer = table[start][100], table["nothing pretrained, 4 times as long"][100]
        assert [(round(np.mean(runs), 3), round(np.std(runs, ddof=1), 3)) for runs in (lifted, longer)] == [*quoted]
        assert decided(lifted, longer)


def test_what_is_said_of_cost():
    size_b = {"tubelet": (2, 16, 16), "dim": 768, "depth": 12, "heads": 12, "mlp_dim": 3072}
    models = {"torchvision:r3d_18": {}, "spacetime": size_b, "factorised_encoder": size_b | {"temporal_depth": 4}}
    flops = {
        name: [comparisons.flops_of(name, (3, t, 224, 224), **options) / 1e9 for t in (16, 128)]
        for name, options in models.items()
    }
    conv, one, two = flops.values()
    assert [round(last / first) for first, last in flops.values()] == [8, 22, 8]
    pooled = r3d_18()
    pooled.stem.append(torch.nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)))
    frames_alone = 16 * count_flops(resnet18(), (3, 224, 224)) / 1e9
    assert round(conv[0] / frames_alone, 1) == 5.6 and 0.85 < conv[0] / one[0] < 1 and two[0] / one[0] > 0.7
    assert round(count_flops(pooled, (3, 16, 224, 224)) / 1e9 / frames_alone, 1) == 1.5
    assert [round(second / first, 2) for first, second in zip(one, two)] == [0.78, 0.28] and round(one[1], -3) == 8000
    trained = {row["row"]: row["recipe"]["options"] for row in recorded("plateau_organphantom3d.json")["rows"]}
    here = {name: comparisons.flops_of(name, (1, 28, 28, 28), **options) / 1e9 for name, options in trained.items()}
    assert [round(here[name], 3) for name in ("cnn3d", "spacetime", "cnn_attention")] == [0.139, 0.123, 0.574]
    assert max(here, key=here.get) == "cnn_attention"
    assert round(here["slow_fusion"] / here["early_fusion"]) == 6 and round(8 * here["cnn3d"] / here["spacetime"]) == 9
    slow, early = (count_parameters(build_model(f"{kind}_fusion")) for kind in ("slow", "early"))
    assert round(slow / early) == 3


def test_flops_are_those_of_the_model_that_is_built():
    options = {"depth": 2, "dim": 32, "heads": 2, "mlp_dim": 64}
    model = build_model("spacetime", clip_shape=(1, 14, 14, 14), **options)
    assert comparisons.flops_of("spacetime", (1, 14, 14, 14), **options) == count_flops(model, (1, 14, 14, 14))


def test_videos_stand_in_for_the_readers_own(tmp_path):
    pytest.importorskip("av")
    shapes = load_volumes("movingshapes")
    folder = stand_in_videos(tmp_path, shapes, classes=(0, 4), count=7)
    videos = load_videos(folder, frames=4, size=112)
    assert set(videos.class_names) == {"grow", "approach"} and videos.train.clips.shape[1:] == (3, 4, 112, 112)
    red, _, blue = videos.train.clips.float().mean(dim=(0, 2, 3, 4))
    assert blue > red + 20, "white shapes on blue"


def test_training_in_steps_changes_the_model_and_nothing_else():
    model = build_model("single_frame", clip_shape=(1, 14, 14, 14), num_classes=2)
    clips = torch.rand(6, 1, 14, 14, 14, generator=torch.Generator().manual_seed(0))
    before, kept = [p.clone() for p in model.parameters()], clips.clone()
    trained = comparisons.train_on(model, clips, torch.tensor([0, 1] * 3), torch.tensor([[0, 1], [2, 3]]), lr=1e-2)
    assert trained is model and not model.training and torch.equal(clips, kept)
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), before) if p.numel() > 1)


def test_answers_are_told_apart_by_side():
    permutation = [1, 0, 2]  # 0 and 1 are the sides of an organ
    answers, labels = torch.tensor([0, 1, 2, 1, 2, 2]), torch.tensor([0, 0, 0, 1, 2, 2])
    said = comparisons.by_side(answers, labels, permutation)
    assert said == "right (no side) 1.00; right (with a side) 0.50; named as the other side 0.25"
    assert comparisons.by_side(answers, labels, [0, 1, 2]) == "right (no side) 0.67", "no class has a side"
