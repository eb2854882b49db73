"""The checks of chapter 01 accept right solutions, however written, and name the mistake in wrong ones."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from tests.exercises.cases import run_cases
from vivit_edu.course.checks import ch01

# ---- 01.1 balanced accuracy


def recalls_by_loop(guesses, labels):
    shares = []
    for k in labels.unique():
        mine = labels == k
        shares.append((guesses[mine] == k).float().mean())
    return torch.stack(shares).mean()


def recalls_by_counting(guesses, labels):
    counts = labels.bincount()
    hits = labels[guesses == labels].bincount(minlength=len(counts))
    there = counts > 0
    return (hits[there] / counts[there]).mean().item()


def recalls_by_weights(guesses, labels):
    weight = 1 / labels.bincount().float()[labels]
    return ((guesses == labels) * weight).sum() / len(set(labels.tolist()))


def recalls_by_numpy(guesses, labels):
    guesses, labels = guesses.numpy(), labels.numpy()
    return np.mean([np.mean(guesses[labels == k] == k) for k in np.unique(labels)])


test_balanced_accuracy = run_cases(
    ch01.check_balanced_accuracy,
    right=[recalls_by_numpy, recalls_by_loop, recalls_by_counting, recalls_by_weights],
    wrong={
        "labels up to the largest": (
            lambda g, y: (
                torch.stack([(g[y == k] == k).float().mean() for k in range(int(y.max()) + 1)]).nan_to_num().mean()
            ),
            "classes without a clip",
        ),
        "classes of the guesses": (
            lambda g, y: torch.stack([(g[y == k] == k).float().mean() for k in g.unique()]).nanmean(),
            "always naming one of two",
        ),
        "all eleven": (lambda g, y: sum((g[y == k] == k).float().mean() for k in y.unique()) / 11, "is wrong"),
        "F1": (
            lambda g, y: torch.stack(
                [2 * ((g == k) & (y == k)).sum() / ((g == k).sum() + (y == k).sum()) for k in y.unique()]
            ).mean(),
            "is wrong: found 0.57778",
        ),
        "median": (
            lambda g, y: torch.stack([(g[y == k] == k).float().mean() for k in y.unique()]).median(),
            "is wrong",
        ),
        "a list": (lambda g, y: [(g[y == k] == k).float().mean() for k in y.unique()], "is 3 numbers, expected one"),
        "accuracy": (lambda g, y: (g == y).float().mean(), "plain accuracy"),
        "absent classes": (
            lambda g, y: torch.stack(
                [((g == k) & (y == k)).sum() / (y == k).sum().clamp(min=1) for k in range(6)]
            ).mean(),
            "classes without a clip",
        ),
        "nan": (
            lambda g, y: torch.stack([(g[y == k] == k).float().mean() for k in range(6)]).mean(),
            "balanced accuracy is wrong",
        ),
        "sum": (lambda g, y: sum((g[y == k] == k).float().mean() for k in y.unique()), "summed"),
        "precision": (
            lambda g, y: torch.stack([(y[g == k] == k).float().mean() for k in g.unique()]).mean(),
            "precision",
        ),
        "precision of the labels' classes": (
            lambda g, y: torch.stack([(y[g == k] == k).float().mean() for k in y.unique()]).mean(),
            "precision",
        ),
        "percent": (lambda g, y: 100 * recalls_by_loop(g, y), "percentage"),
        "one value a class": (
            lambda g, y: torch.stack([(g[y == k] == k).float().mean() for k in y.unique()]),
            "is 3 numbers, expected one",
        ),
        "no return": (lambda g, y: None, "None"),
        "error": (lambda g, y: g.mean(), "raised"),
    },
)

# ---- 01.2 nearest mean


def means_by_loop(clips, labels, new):
    answers = []
    means = {int(k): clips[labels == k].float().mean(dim=0) for k in labels.unique()}
    for clip in new.float():
        answers.append(min(means, key=lambda k: ((clip - means[k]) ** 2).sum().item()))
    return torch.tensor(answers)


def means_by_cdist(clips, labels, new):
    means = torch.stack([clips[labels == k].float().mean(dim=0) for k in range(labels.max() + 1)])
    return torch.cdist(new.float().flatten(1), means.flatten(1)).argmin(dim=1)


def means_by_one_hot(clips, labels, new):
    members = F.one_hot(labels).float()  # [N, K]
    means = members.T @ clips.flatten(1).float() / members.sum(dim=0)[:, None]
    x = new.flatten(1).float()
    return (x.pow(2).sum(1)[:, None] - 2 * x @ means.T + means.pow(2).sum(1)).argmin(dim=1)


def centres(clips, labels):
    return torch.stack([clips[labels == k].float().mean(0) for k in range(4)]).flatten(1)


def in_bytes(clips, labels, new):
    means = torch.stack([clips[labels == k].float().mean(0).byte() for k in range(4)])
    return ((new[:, None] - means) ** 2).flatten(2).sum(2).argmin(1)


def in_place(clips, labels, new):
    found = means_by_cdist(clips, labels, new)
    clips -= 1
    return found


def nearest(new, means, p=2.0):
    means = torch.stack(list(means)).flatten(1)
    return torch.cdist(new.float().flatten(1), means, p=p).argmin(1)


test_nearest_mean = run_cases(
    ch01.check_nearest_mean,
    right=[means_by_loop, means_by_cdist, means_by_one_hot],
    wrong={
        "always eleven classes": (
            lambda c, y, n: nearest(n, [c[y == k].float().mean(0) for k in range(11)]),
            "is wrong in 40",
        ),
        "absolute differences": (lambda c, y, n: nearest(n, centres(c, y), p=1), "is wrong in 10"),
        "the largest difference": (lambda c, y, n: nearest(n, centres(c, y), p=float("inf")), "is wrong in 15"),
        "the last class left out": (lambda c, y, n: nearest(n, centres(c, y)[:-1]), "is wrong in 20"),
        "median": (
            lambda c, y, n: nearest(n, [c[y == k].float().median(0).values for k in range(y.max() + 1)]),
            "is wrong in 8",
        ),
        "in order of appearance": (
            lambda c, y, n: nearest(n, [c[y == k].float().mean(0) for k in dict.fromkeys(y.tolist())]),
            "is wrong in 40",
        ),
        "one clip loses its axis": (lambda c, y, n: means_by_cdist(c, y, n).squeeze(), r"shape \[\], expected \[1\]"),
        "a list": (lambda c, y, n: means_by_cdist(c, y, n).tolist(), "is a list"),
        "decimals": (lambda c, y, n: means_by_cdist(c, y, n).float(), "float32, expected int64"),
        "one hot": (lambda c, y, n: F.one_hot(means_by_cdist(c, y, n)), "2 axes instead of 1"),
        "argmax": (lambda c, y, n: torch.cdist(n.float().flatten(1), centres(c, y)).argmax(1), "furthest"),
        "sums": (
            lambda c, y, n: torch.cdist(
                n.float().flatten(1), torch.stack([c[y == k].float().sum(0) for k in range(4)]).flatten(1)
            ).argmin(1),
            "summed",
        ),
        "bytes": (in_bytes, "uint8"),
        "brightness": (
            lambda c, y, n: (n.float().flatten(1).mean(1)[:, None] - centres(c, y).mean(1)).abs().argmin(1),
            "brightness",
        ),
        "nearest clip": (
            lambda c, y, n: y[torch.cdist(n.float().flatten(1), c.float().flatten(1)).argmin(1)],
            "nearest clip",
        ),
        "dot product": (lambda c, y, n: (n.float().flatten(1) @ centres(c, y).T).argmax(1), "dot product"),
        "over the clips": (lambda c, y, n: torch.cdist(n.float().flatten(1), centres(c, y)).argmin(0), r"shape \[4\]"),
        "distances": (lambda c, y, n: torch.cdist(n.float().flatten(1), centres(c, y)), r"shape \[40, 4\]"),
        "in place": (in_place, "changes the .* that it was given"),
        "mean of bytes": (lambda c, y, n: c.mean(0), "raised"),
    },
)

# ---- 01.3 split by patient


def by_isin(patients, share, generator):
    numbers = patients.unique()
    drawn = numbers[torch.randperm(len(numbers), generator=generator)][: round(share * len(numbers))]
    return torch.isin(patients, drawn)


def by_inverse(patients, share, generator):
    numbers, which = patients.unique(return_inverse=True)
    rank = torch.rand(len(numbers), generator=generator).argsort().argsort()
    return rank[which] < round(share * len(numbers))


def by_set(patients, share, generator):
    numbers = sorted(set(patients.tolist()))
    order = torch.randperm(len(numbers), generator=generator).tolist()
    held = {numbers[i] for i in order[: int(share * len(numbers) + 0.5)]}
    return torch.tensor([int(p) in held for p in patients])


def draw(numbers, share, **how):
    return numbers[torch.randperm(len(numbers), **how)][: round(share * len(numbers))]


def cut_off(patients, share, generator):
    numbers = patients.unique()
    return torch.isin(patients, numbers[torch.randperm(len(numbers), generator=generator)][: int(share * len(numbers))])


def order(patients, generator):
    return patients.unique()[torch.randperm(len(patients.unique()), generator=generator)]


def held(patients, share):
    return round(share * len(patients.unique()))


test_split_by_patient = run_cases(
    ch01.check_split_by_patient,
    right=[by_isin, by_inverse, by_set],
    wrong={
        "a run of neighbours": (
            lambda p, s, g: torch.isin(
                p, p.unique().roll(int(torch.randint(len(p.unique()), (), generator=g)))[: held(p, s)]
            ),
            "not a run of neighbours",
        ),
        "rounded up": (
            lambda p, s, g: torch.isin(p, order(p, g)[: math.ceil(s * len(p.unique()))]),
            "3 are held out, expected 2",
        ),
        "a coin for each": (
            lambda p, s, g: torch.isin(p, p.unique()[torch.rand(len(p.unique()), generator=g) < s]),
            "patients are held out",
        ),
        "from the end": (lambda p, s, g: torch.isin(p, order(p, g)[-held(p, s) :]), "4 are held out, expected 0"),
        "with repetition": (
            lambda p, s, g: torch.isin(p, p.unique()[torch.randint(len(p.unique()), (held(p, s),), generator=g)]),
            "1 or 2 are held out|2 of 10",
        ),
        "never none": (lambda p, s, g: torch.isin(p, order(p, g)[: max(1, held(p, s))]), "1 are held out, expected 0"),
        "uint8": (lambda p, s, g: by_isin(p, s, g).to(torch.uint8), "uint8, expected torch.bool"),
        "a seed of its own": (lambda p, s, g: by_isin(p, s, torch.Generator().manual_seed(0)), "every seed"),
        "the generator seeded again": (lambda p, s, g: by_isin(p, s, g.manual_seed(0)), "every seed"),
        "numpy's generator": (
            lambda p, s, g: torch.isin(p, torch.from_numpy(np.random.permutation(p.unique().numpy())[: held(p, s)])),
            "draws from the global generator",
        ),
        "by clip": (lambda p, s, g: torch.rand(len(p), generator=g) < s, "both sides"),
        "first clips": (lambda p, s, g: torch.arange(len(p)) < round(s * len(p)), "both sides"),
        "without unique": (lambda p, s, g: torch.isin(p, draw(p, s, generator=g)), "of 10 patients are held out"),
        "numbers as if without gaps": (lambda p, s, g: torch.isin(p, torch.randperm(10, generator=g)[:3]), "gaps"),
        "cut off": (cut_off, "takes to 3 and int"),
        "kept": (lambda p, s, g: ~by_isin(p, s, g), "share to keep"),
        "first patients": (lambda p, s, g: torch.isin(p, p.unique()[:3]), "every seed"),
        "generator not used": (lambda p, s, g: torch.isin(p, draw(p.unique(), s)), "draws from the global generator"),
        "one draw a patient": (
            lambda p, s, g: (torch.rand(10, generator=g) < s)[p.unique(return_inverse=True)[1]],
            "patients are held out|differs",
        ),
        "numbers of clips": (lambda p, s, g: by_isin(p, s, g).nonzero().flatten(), "torch.bool"),
        "two masks": (lambda p, s, g: (by_isin(p, s, g), ~by_isin(p, s, g)), "tuple"),
        "one value a patient": (lambda p, s, g: torch.rand(10, generator=g) < s, r"shape \[10\]"),
    },
)

# ---- 01.4 flips with labels


def by_clone(clips, labels, mirror, chosen):
    clips, labels = clips.clone(), labels.clone()
    clips[chosen] = clips[chosen].flip(mirror.axis + 1)
    labels[chosen] = torch.tensor(mirror.permutation)[labels[chosen]]
    return clips, labels


def by_where(clips, labels, mirror, chosen):
    clips = torch.where(chosen[:, None, None, None, None], clips.flip(mirror.axis - 4), clips)
    return clips, torch.where(chosen, torch.tensor(mirror.permutation)[labels], labels)


def by_clip(clips, labels, mirror, chosen):
    flipped = [c.flip(mirror.axis) if f else c for c, f in zip(clips, chosen)]
    named = [mirror.permutation[k] if f else int(k) for k, f in zip(labels, chosen)]
    return torch.stack(flipped), torch.tensor(named)


def edit(**changes):
    """by_where with some of its parts replaced by a mistake."""

    def wrong(clips, labels, mirror, chosen):
        right_clips, right_labels = by_where(clips, labels, mirror, chosen)
        found = {"clips": right_clips, "labels": right_labels}
        found |= {key: make(clips, labels, mirror, chosen) for key, make in changes.items()}
        return found["clips"], found["labels"]

    return wrong


def changes_its_input(clips, labels, mirror, chosen):
    clips[chosen] = clips[chosen].flip(mirror.axis + 1)
    labels[chosen] = torch.tensor(mirror.permutation)[labels[chosen]]
    return clips, labels


def along(axis_of):
    return lambda c, y, m, f: torch.where(f[:, None, None, None, None], c.flip(axis_of(m)), c)


test_mirrored = run_cases(
    ch01.check_mirrored,
    right=[by_clone, by_where, by_clip],
    wrong={
        "decimals": (edit(clips=lambda c, y, m, f: by_where(c, y, m, f)[0].float()), "float32, expected uint8"),
        "the first alone": (
            edit(clips=lambda c, y, m, f: torch.cat((c[:1].flip(m.axis + 1) if f[0] else c[:1], c[1:]))),
            "batch of clips is wrong",
        ),
        "all where one is chosen": (
            lambda c, y, m, f: (c.flip(m.axis + 1), torch.tensor(m.permutation)[y]) if f.any() else (c, y),
            "all clips were flipped",
        ),
        "width or height": (edit(clips=along(lambda m: 4 if m.axis == 3 else 2)), "clips is wrong in 118"),
        "axis off by one": (edit(clips=along(lambda m: m.axis)), "wrong axis"),
        "axis written in": (edit(clips=along(lambda m: 4)), "mirror.axis"),
        "all clips": (edit(clips=lambda c, y, m, f: c.flip(m.axis + 1)), "all clips"),
        "the others": (edit(clips=lambda c, y, m, f: by_where(c, y, m, ~f)[0]), "not chosen"),
        "no flip": (edit(clips=lambda c, y, m, f: c), "no clip"),
        "labels kept": (edit(labels=lambda c, y, m, f: y), "not swapped"),
        "all labels": (edit(labels=lambda c, y, m, f: torch.tensor(m.permutation)[y]), "all labels"),
        "pairs written in": (
            edit(labels=lambda c, y, m, f: torch.where(f, torch.tensor([0, 2, 1, 4, 3])[y], y)),
            "mirror.permutation",
        ),
        "other labels": (edit(labels=lambda c, y, m, f: by_where(c, y, m, ~f)[1]), "were not flipped"),
        "in place": (changes_its_input, "changes the .* that it was given"),
        "only the chosen": (lambda c, y, m, f: (c[f].flip(m.axis + 1), torch.tensor(m.permutation)[y[f]]), "shape"),
        "clips alone": (lambda c, y, m, f: by_where(c, y, m, f)[0], "two things"),
    },
)
