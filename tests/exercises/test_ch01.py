"""The checks of chapter 01 accept right solutions, however written, and name the mistake in wrong ones."""

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


test_balanced_accuracy = run_cases(
    ch01.check_balanced_accuracy,
    right=[recalls_by_loop, recalls_by_counting, recalls_by_weights],
    wrong={
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


test_nearest_mean = run_cases(
    ch01.check_nearest_mean,
    right=[means_by_loop, means_by_cdist, means_by_one_hot],
    wrong={
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


test_split_by_patient = run_cases(
    ch01.check_split_by_patient,
    right=[by_isin, by_inverse, by_set],
    wrong={
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
