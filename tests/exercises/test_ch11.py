"""Chapter 11: what its checks accept and refuse, and what its cells define."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.cases import run_cases
from vivit_edu import augment
from vivit_edu.augment import mixing, warp
from vivit_edu.authoring.masters import checkout, load_definitions
from vivit_edu.course.checks import ch11
from vivit_edu.vivit import DropPath
from vivit_edu.volumes import Mirror

# ---- 11.1


def by_padding(clips, offsets):
    moved = []
    for clip, (t, h, w) in zip(clips, offsets.tolist()):
        n_t, n_h, n_w = clip.shape[1:]
        room = max(abs(t), abs(h), abs(w))
        big = F.pad(clip, (room,) * 6)
        moved.append(big[:, room - t : room - t + n_t, room - h : room - h + n_h, room - w : room - w + n_w])
    return torch.stack(moved)


def by_roll_and_zero(clips, offsets):
    moved = []
    for clip, offset in zip(clips, offsets):
        for axis, by in enumerate(offset.tolist(), 1):
            clip = clip.roll(by, axis)
            size = clip.shape[axis]
            places = torch.arange(size).reshape([-1 if k == axis else 1 for k in range(4)])
            came = (places >= by) & (places < size + by)
            clip = torch.where(came, clip, torch.zeros_like(clip))
        moved.append(clip)
    return torch.stack(moved)


def by_slices(clips, offsets):
    result = torch.zeros_like(clips)
    for b in range(len(clips)):
        to, source = [b, slice(None)], [b, slice(None)]
        for by, size in zip(offsets[b].tolist(), clips.shape[2:]):
            by = max(-size, min(size, by))
            to.append(slice(max(by, 0), size + min(by, 0)))
            source.append(slice(max(-by, 0), size + min(-by, 0)))
        result[tuple(to)] = clips[tuple(source)]
    return result


def each(change):
    """A solution from what it does to one clip and its offset."""
    return lambda clips, offsets: torch.stack([change(clip, by) for clip, by in zip(clips, offsets.tolist())])


def with_offsets(change):
    return lambda clips, offsets: by_padding(clips, change(offsets))


def written_into_the_clips(clips, offsets):
    for b in range(len(clips)):
        clips[b] = by_padding(clips[b : b + 1], offsets[b : b + 1])[0]
    return clips


def three_clips(clips, offsets):
    return torch.stack([by_padding(clips[k : k + 1], offsets[k : k + 1])[0] for k in range(3)])


def in_numpy(clips, offsets):
    moved = np.zeros_like(clips.numpy())
    for b, offset in enumerate(offsets.numpy()):
        for place in np.argwhere(np.ones(clips.shape[2:])):
            if ((place - offset >= 0) & (place - offset < clips.shape[2:])).all():
                moved[(b, slice(None), *place)] = clips.numpy()[(b, slice(None), *(place - offset))]
    return torch.from_numpy(moved)


@torch.no_grad()
def without_gradients(clips, offsets):
    return by_padding(clips.data, offsets)


def padded_by(room, clamped=False):
    """A solution with the same room for every clip; room: of a clip's shape [C, T, H, W]."""

    def moved(clip, by):
        r = room(clip.shape)
        by = [max(-r, min(r, b)) for b in by] if clamped else by
        t, h, w = (slice(r - b, r - b + size) for b, size in zip(by, clip.shape[1:]))
        return F.pad(clip, [r] * 6)[:, t, h, w]

    return each(moved)


def longest(shape):
    return max(shape[1:])


def clamped_to_the_longest_axis(clips, offsets):
    return padded_by(longest, clamped=True)(clips, offsets)


def from_zeros(clips, offsets):
    result = torch.zeros(clips.shape)
    return result + by_padding(clips, offsets)


def replicated(clip, by):
    room = max(map(abs, by))
    t, h, w = (slice(room - b, room - b + size) for b, size in zip(by, clip.shape[1:]))
    return F.pad(clip[None], [room] * 6, mode="replicate")[0][:, t, h, w]


def room_of_three(clip, by):
    t, h, w = (slice(3 - b, 3 - b + size) for b, size in zip(by, clip.shape[1:]))
    return F.pad(clip, [3] * 6)[:, t, h, w]


test_shift = run_cases(
    ch11.check_shift,
    right=[by_padding, by_roll_and_zero, by_slices, in_numpy, without_gradients, clamped_to_the_longest_axis],
    wrong={
        "roll": (each(lambda clip, by: clip.roll(by, (1, 2, 3))), "as torch.roll does it"),
        "the other way": (with_offsets(lambda o: -o), "the other way"),
        "W, H, T": (with_offsets(lambda o: o.flip(1)), "in the order W, H, T"),
        "the first offset for all": (with_offsets(lambda o: o[:1].expand(len(o), 3)), "by the first one's offset"),
        "edge repeated": (each(replicated), "the edge was repeated"),
        "W only": (with_offsets(lambda o: o * torch.tensor([0, 0, 1])), "only the last axis"),
        "not along T": (with_offsets(lambda o: o * torch.tensor([0, 1, 1])), "along T"),
        "nothing done": (lambda clips, offsets: clips, "nothing was moved"),
        "changed in place": (written_into_the_clips, "changes the clips"),
        "always three clips": (three_clips, "your code raised|expected"),
        "room of 28": (padded_by(lambda shape: 28), "equal size.*beyond ±room|your code raised|expected"),
        "room of 9": (padded_by(lambda shape: 9), "beyond ±room|your code raised|expected"),
        "room without a clamp": (padded_by(longest), "an offset beyond ±room moves everything out: clamp it"),
        "room of W": (padded_by(lambda shape: shape[3], clamped=True), "limited to the size of W"),
        "zeros of float32": (from_zeros, "float64|uint8"),
        "a list": (lambda clips, offsets: list(by_padding(clips, offsets)), "a list"),
        "room of three": (each(room_of_three), "your code raised|expected"),
        "no return": (lambda clips, offsets: None, "None"),
        "not written": (lambda *_: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 11.2


def by_where(clips, labels, sides, generator):
    coin = torch.rand(len(clips), generator=generator) < 0.5
    swapped = torch.tensor(sides.permutation)[labels]
    found = torch.where(coin[:, None, None, None, None], clips.flip(sides.axis + 1), clips)
    return found, torch.where(coin, swapped, labels)


def by_index(clips, labels, sides, generator):
    clips, labels = clips.clone(), labels.clone()
    chosen = torch.randint(0, 2, (len(clips),), generator=generator).bool()
    clips[chosen] = clips[chosen].flip(sides.axis + 1)
    labels[chosen] = torch.tensor(sides.permutation)[labels[chosen]]
    return clips, labels


def clip_by_clip(clips, labels, sides, generator):
    found, told = [], []
    for clip, label in zip(clips, labels):
        if torch.rand(1, generator=generator) < 0.5:
            clip, label = clip.flip(sides.axis), torch.tensor(sides.permutation[int(label)])
        found.append(clip)
        told.append(label)
    return torch.stack(found), torch.stack(told)


def by_package(clips, labels, sides, generator):
    return augment.mirror_batch(clips, labels, sides, generator)


def mirrored(flip=None, swap=None, toss=None):
    """A solution with one part changed: flip(clips, sides), swap(labels, table), toss(count, generator)."""

    def solution(clips, labels, sides, generator):
        coin = toss(len(clips), generator) if toss else torch.rand(len(clips), generator=generator) < 0.5
        table = torch.tensor(sides.permutation)
        image = flip(clips, sides) if flip else clips.flip(sides.axis + 1)
        told = swap(labels, table) if swap else table[labels]
        return torch.where(coin.reshape(-1, 1, 1, 1, 1), image, clips), torch.where(coin, told, labels)

    return solution


def as_floats(clips, labels, sides, generator):
    coin = (torch.rand(len(clips), generator=generator) < 0.5).float()
    table = torch.tensor(sides.permutation)
    w = coin.reshape(-1, 1, 1, 1, 1)
    return w * clips.flip(sides.axis + 1) + (1 - w) * clips, coin * table[labels] + (1 - coin) * labels


def of_int32(clips, labels, sides, generator):
    found, told = by_where(clips, labels, sides, generator)
    return found, told.int()


def class_after_class(clips, labels, sides, generator):
    coin, labels = torch.rand(len(clips), generator=generator) < 0.5, labels.clone()
    for k, j in enumerate(sides.permutation):
        labels[coin & (labels == k)] = j
    return torch.where(coin.reshape(-1, 1, 1, 1, 1), clips.flip(sides.axis + 1), clips), labels


def two_coins(clips, labels, sides, generator):
    found, _ = by_where(clips, labels, sides, generator)
    _, told = by_where(clips, labels, sides, generator)
    return found, told


def all_labels(clips, labels, sides, generator):
    found, _ = by_where(clips, labels, sides, generator)
    return found, torch.tensor(sides.permutation)[labels]


def the_others(clips, labels, sides, generator):
    coin = torch.rand(len(clips), generator=generator) < 0.5
    found = torch.where(coin.reshape(-1, 1, 1, 1, 1), clips.flip(sides.axis + 1), clips)
    return found, torch.where(coin, labels, torch.tensor(sides.permutation)[labels])


def for_all(clips, labels, sides, generator):
    if torch.rand(1, generator=generator) < 0.5:
        return clips.flip(sides.axis + 1), torch.tensor(sides.permutation)[labels]
    return clips, labels


def half_of_them(clips, labels, sides, generator):
    coin = torch.randperm(len(clips), generator=generator) < len(clips) // 2
    return mirrored(toss=lambda *_: coin)(clips, labels, sides, generator)


def without_generator(clips, labels, sides, generator):
    return by_where(clips, labels, sides, None)


def into_the_clips(clips, labels, sides, generator):
    coin = torch.rand(len(clips), generator=generator) < 0.5
    clips[coin] = clips[coin].flip(sides.axis + 1)
    return clips, torch.where(coin, torch.tensor(sides.permutation)[labels], labels)


def rounded(clips, labels, sides, generator):
    found, told = by_where(clips.float(), labels, sides, generator)
    return found, told


test_mirror = run_cases(
    ch11.check_mirror,
    right=[by_where, by_index, clip_by_clip, by_package],
    wrong={
        "labels stay": (mirrored(swap=lambda y, table: y), "their labels stayed"),
        "all labels": (all_labels, "all labels were swapped"),
        "the others' labels": (the_others, "that stayed were swapped"),
        "two coins": (two_coins, "one coin per clip"),
        "axis of a clip": (mirrored(flip=lambda x, sides: x.flip(sides.axis)), "one more in front"),
        "always the width": (mirrored(flip=lambda x, sides: x.flip(4)), "neither the one given|another axis"),
        "the batch": (mirrored(flip=lambda x, sides: x.flip(0)), "changed places|neither the one given"),
        "one coin for all": (for_all, "one coin decided for the whole batch"),
        "always": (mirrored(toss=lambda n, g: torch.rand(n, generator=g) < 2), "every clip is flipped"),
        "always, without a draw": (mirrored(toss=lambda n, g: torch.ones(n).bool()), "every clip is flipped"),
        "never": (mirrored(toss=lambda n, g: torch.randint(0, 1, (n,), generator=g).bool()), "no clip is ever flipped"),
        "labels of float32": (as_floats, "labels come back as torch.float32, expected torch.int64"),
        "labels of int32": (of_int32, "labels come back as torch.int32"),
        "swaps that undo each other": (class_after_class, "the swaps undo each other"),
        "seldom": (mirrored(toss=lambda n, g: torch.rand(n, generator=g) < 0.1), "about a half"),
        "exactly half": (half_of_them, "the same number of flipped clips|of one clip"),
        "no generator": (without_generator, "from the global generator|the same seed gives another"),
        "in place": (into_the_clips, "changes the clips"),
        "clips only": (lambda *given: by_where(*given)[0], "expected two things"),
        "the next class": (mirrored(swap=lambda y, table: (y + 1) % len(table)), "not changed together"),
        "float32": (rounded, "float64|neither the one given"),
        "no return": (lambda *_: None, "None"),
    },
)

# ---- 11.3


def exact(augmentation, clips, labels, sides):
    swap = list(sides.permutation)
    for seed in range(30):
        found, told = augmentation(clips, labels, torch.Generator().manual_seed(seed))
        for before, label, after, new in zip(clips, labels.tolist(), found, told.tolist()):
            same, image = torch.equal(before, after), torch.equal(before.flip(sides.axis), after)
            if not (same and new == label or image and new == swap[label]):
                return False
    return True


def at_once(augmentation, clips, labels, sides):
    image, swapped = clips.flip(sides.axis + 1), torch.tensor(sides.permutation)[labels]
    for seed in range(25):
        found, told = augmentation(clips, labels, torch.Generator().manual_seed(seed))
        stayed = (found == clips).flatten(1).all(1) & (told == labels)
        turned = (found == image).flatten(1).all(1) & (told == swapped)
        if not (stayed | turned).all():
            return False
    return True


def with_marks(augmentation, clips, labels, sides):
    """Writes numbers into the voxels, so that clips and sides can be read again."""
    size = clips.shape[sides.axis + 1]
    ramp = torch.arange(1.0, size + 1).reshape([-1 if axis == sides.axis + 1 else 1 for axis in range(5)])
    marked = torch.zeros_like(clips) + ramp + 100 * torch.arange(len(clips)).reshape(-1, 1, 1, 1, 1)
    right = []
    for seed in range(25):
        found, told = augmentation(marked, labels, torch.Generator().manual_seed(seed))
        for k in range(len(clips)):
            flipped = not torch.equal(found[k], marked[k])
            wanted = sides.permutation[labels[k]] if flipped else labels[k]
            whole = marked[k].flip(sides.axis) if flipped else marked[k]
            right.append(bool(told[k] == wanted) and torch.equal(found[k], whole))
    return all(right)


def looks_at(seeds=30, first=0, image=None, label_of_image=None, stayed=True, unknown=False):
    """A test that looks at less than it should."""

    def solution(augmentation, clips, labels, sides):
        swap = torch.tensor(sides.permutation)
        for seed in range(first, first + seeds):
            found, told = augmentation(clips, labels, torch.Generator().manual_seed(seed))
            for k in range(len(clips)):
                turned = image(clips[k], sides) if image else clips[k].flip(sides.axis)
                if torch.equal(found[k], clips[k]):
                    if stayed and told[k] != labels[k]:
                        return False
                elif torch.equal(found[k], turned):
                    if told[k] != (label_of_image(labels[k], swap) if label_of_image else swap[labels[k]]):
                        return False
                elif not unknown:
                    return False
        return True

    return solution


def labels_only(augmentation, clips, labels, sides):
    _, told = augmentation(clips, labels, torch.Generator().manual_seed(0))
    swap = torch.tensor(sides.permutation)
    return bool(((told == labels) | (told == swap[labels])).all())


def some_change(augmentation, clips, labels, sides):
    found, told = augmentation(clips, labels, torch.Generator().manual_seed(0))
    return bool((found != clips).any()) == bool((told != labels).any())


def must_flip(augmentation, clips, labels, sides):
    flips = 0
    for seed in range(30):
        found, _ = augmentation(clips, labels, torch.Generator().manual_seed(seed))
        flips += bool((found != clips).any())
    return flips > 0 and at_once(augmentation, clips, labels, sides)


def on_average(augmentation, clips, labels, sides):
    """Clips of organs with a side and labels changed equally often."""
    moved = renamed = 0
    for seed in range(30):
        found, told = augmentation(clips, labels, torch.Generator().manual_seed(seed))
        moved += int((found != clips).flatten(1).any(1)[labels > 0].sum())
        renamed += int((told != labels).sum())
    return moved == renamed


test_labels_follow = run_cases(
    ch11.check_labels_follow,
    right=[exact, at_once, with_marks],
    wrong={
        "a single batch": (looks_at(seeds=1), "in one batch out of eight.*call it more often"),
        "four batches": (looks_at(seeds=4), "in one batch out of eight"),
        "torch's first seed": (looks_at(seeds=1, first=67280421310721), "in one batch out of eight"),
        "only labels that exist": (labels_only, "leaves their labels"),
        "something changed": (some_change, "your test (passes|refuses)"),
        "has to flip": (must_flip, "refuses an augmentation that is right: it never flips"),
        "changed equally often": (on_average, "your test (passes|refuses)"),
        "flipped clips only": (looks_at(stayed=False), "passes an augmentation that is wrong"),
        "axis of a batch for a clip": (
            looks_at(image=lambda clip, sides: clip.flip((sides.axis + 1) % 4)),
            "refuses an augmentation that is right",
        ),
        "axis of a clip for a batch": (
            looks_at(image=lambda clip, sides: clip[None].flip(sides.axis)[0]),
            "refuses an augmentation that is right: each clip has its coin.*one more in front",
        ),
        "labels stay": (looks_at(label_of_image=lambda label, swap: label), "refuses an augmentation that is right"),
        "whatever it is": (looks_at(unknown=True), "passes an augmentation that is wrong: it flips along another axis"),
        "the axis of the notebook": (
            looks_at(image=lambda clip, sides: clip.flip(3)),
            "of other classes and another axis",
        ),
        "always": (lambda *_: True, "passes an augmentation that is wrong: it flips clips"),
        "never": (lambda *_: False, "refuses an augmentation that is right"),
        "in a list": (lambda *given: [at_once(*given)], "must be True or False"),
        "no return": (lambda *_: None, "must be True or False, got None"),
    },
)

# ---- 11.4


def by_one_hot(labels, classes, s):
    return (1 - s) * F.one_hot(labels, classes).float() + s / classes


def by_scatter(labels, classes, s):
    targets = torch.full((len(labels), classes), s / classes)
    return targets.scatter_add(1, labels[:, None], torch.full((len(labels), 1), 1 - s))


def by_rows(labels, classes, s):
    rows = []
    for label in labels.tolist():
        row = [s / classes] * classes
        row[label] += 1 - s
        rows.append(row)
    return torch.tensor(rows)


def by_index_put(labels, classes, s):
    targets = torch.full([len(labels), classes], float(s) / classes)
    targets[torch.arange(len(labels)), labels] = 1 - s + s / classes
    return targets


def smoothed(formula):
    """A solution from the formula of one-hot rows, K and s."""
    return lambda labels, classes, s: formula(F.one_hot(labels, classes).float(), classes, s)


test_smooth = run_cases(
    ch11.check_smooth,
    right=[by_one_hot, by_scatter, by_rows, by_index_put],
    wrong={
        "the others only": (smoothed(lambda y, k, s: (1 - s) * y + (1 - y) * s / (k - 1)), "the other classes only"),
        "above 1": (smoothed(lambda y, k, s: y + s / k), "do not sum to 1"),
        "s for everyone": (smoothed(lambda y, k, s: (1 - s) * y + s), "the whole share s"),
        "s is what stays": (smoothed(lambda y, k, s: s * y + (1 - s) / k), "is the share that is spread"),
        "only less": (smoothed(lambda y, k, s: (1 - s) * y), "nothing was spread"),
        "1 - s at the label": (
            smoothed(lambda y, k, s: (1 - s) * y + (1 - y) * s / k),
            r"the rows do not sum to 1: .* 1 - s \+ s/K",
        ),
        "hard": (smoothed(lambda y, k, s: y), "hard targets"),
        "by the clips": (lambda y, k, s: (1 - s) * F.one_hot(y, k) + s / len(y), "the number of clips"),
        "eleven classes": (lambda y, k, s: by_one_hot(y, 11, s), r"expected \[4, 5\]"),
        "classes from the labels": (lambda y, k, s: by_one_hot(y, int(y.max()) + 1, s), "expected|wrong"),
        "softmax": (smoothed(lambda y, k, s: y.softmax(1)), "(is|are) wrong"),
        "the notebook's share": (lambda y, k, s: by_one_hot(y, k, 0.2), "With other"),
        "the labels only": (lambda y, k, s: y * (1 - s) + s / k, "1 axis instead of 2"),
        "transposed": (lambda y, k, s: by_one_hot(y, k, s).T, "axes in another order"),
        "float64": (lambda y, k, s: by_one_hot(y, k, s).double(), "float64"),
        "no return": (lambda *_: None, "None"),
    },
)

# ---- 11.5


def wide(weight):
    return weight[:, None, None, None, None]


def by_roll(clips, targets, weight):
    w = weight[:, None]
    return (wide(weight) * clips + (1 - wide(weight)) * clips.roll(1, 0), w * targets + (1 - w) * targets.roll(1, 0))


def by_lerp(clips, targets, weight):
    return (torch.lerp(clips.roll(1, 0), clips, wide(weight)), torch.lerp(targets.roll(1, 0), targets, weight[:, None]))


def one_by_one(clips, targets, weight):
    parts = [
        (w * clips[i] + (1 - w) * clips[i - 1], w * targets[i] + (1 - w) * targets[i - 1]) for i, w in enumerate(weight)
    ]
    return tuple(torch.stack(part) for part in zip(*parts))


def one_by_one_with_numbers(clips, targets, weight):
    new, told = clips.clone(), targets.clone()
    for i in range(len(clips)):
        w = weight[i].item()
        new[i] = w * clips[i] + (1 - w) * clips[i - 1]
        told[i] = w * targets[i] + (1 - w) * targets[i - 1]
    return new, told


@torch.no_grad()
def mixed_without_gradients(clips, targets, weight):
    return by_roll(clips, targets, weight)


def mixed_in_numpy(clips, targets, weight):
    w = weight.numpy()
    parts = [
        w.reshape(-1, *[1] * (part.ndim - 1)) * part.numpy()
        + (1 - w.reshape(-1, *[1] * (part.ndim - 1))) * np.roll(part.numpy(), 1, axis=0)
        for part in (clips, targets)
    ]
    return tuple(map(torch.from_numpy, parts))


def by_roll_detached(clips, targets, weight):
    return by_roll(clips.detach(), targets, weight)


def in_a_loop(clips, targets, weight):
    clips, targets = clips.clone(), targets.clone()
    for i, w in enumerate(weight):
        clips[i] = w * clips[i] + (1 - w) * clips[i - 1]
        targets[i] = w * targets[i] + (1 - w) * targets[i - 1]
    return clips, targets


def random_partners(clips, targets, weight):
    other = torch.randperm(len(clips))
    w = weight[:, None]
    return wide(weight) * clips + (1 - wide(weight)) * clips[other], w * targets + (1 - w) * targets[other]


def mixed(clips=None, targets=None):
    def solution(c, y, weight):
        right = by_roll(c, y, weight)
        return clips(c, wide(weight)) if clips else right[0], targets(y, weight[:, None]) if targets else right[1]

    return solution


def in_place(clips, targets, weight):
    clips *= wide(weight)
    return clips, targets


test_mixup = run_cases(
    ch11.check_mixup,
    right=[
        by_roll,
        by_lerp,
        one_by_one,
        one_by_one_with_numbers,
        mixed_without_gradients,
        mixed_in_numpy,
        by_roll_detached,
    ],
    wrong={
        "overwritten partners": (in_a_loop, "the clips are written into while they are still read"),
        "random partners for both": (random_partners, "drawn at random: take clip i - 1"),
        "the first left whole": (
            lambda c, y, w: (torch.cat((c[:1], by_roll(c, y, w)[0][1:])), by_roll(c, y, w)[1]),
            "(is|are) wrong in 120",
        ),
        "the mean weight": (lambda c, y, w: by_roll(c, y, w.mean().expand(len(w))), "(is|are) wrong in"),
        "random partners": (
            mixed(lambda c, w: w * c + (1 - w) * c[torch.randperm(len(c))]),
            "drawn at random",
        ),
        "float32 whatever comes": (lambda c, y, w: by_roll(c.float(), y.float(), w.float()), "with tensors of float64"),
        "targets through softmax": (
            lambda c, y, w: (by_roll(c, y, w)[0], by_roll(c, y, w)[1].softmax(1)),
            "targets (is|are) wrong",
        ),
        "targets stay": (mixed(targets=lambda y, w: y), "targets stayed"),
        "weights exchanged": (
            mixed(lambda c, w: (1 - w) * c + w * c.roll(1, 0)),
            r"the weights of the clips are exchanged.*\(the targets are right\)",
        ),
        "targets' weights exchanged": (
            mixed(targets=lambda y, w: (1 - w) * y + w * y.roll(1, 0)),
            r"the weights of the targets are exchanged.*\(the clips are right\)",
        ),
        "both exchanged": (lambda c, y, w: by_roll(c, y, 1 - w), "weights of the clips are exchanged.*to its partner$"),
        "the next clip": (
            lambda c, y, w: by_roll(c, y, w)[:1] + (w[:, None] * y + (1 - w[:, None]) * y.roll(-1, 0),),
            "the partner of the targets is the one after",
        ),
        "from the other end": (mixed(lambda c, w: w * c + (1 - w) * c.flip(0)), "from the other end"),
        "one weight for all": (
            mixed(lambda c, w: w[0] * c + (1 - w[0]) * c.roll(1, 0)),
            "one weight was used for all clips",
        ),
        "along W": (mixed(lambda c, w: w.flatten() * c + (1 - w.flatten()) * c.roll(1, 0)), "along W"),
        "voxels rolled": (mixed(lambda c, w: w * c + (1 - w) * c.roll(1)), "moves voxels"),
        "a sum above 1": (mixed(lambda c, w: w * c + c.roll(1, 0)), "do not sum to 1"),
        "itself": (mixed(lambda c, w: w * c + (1 - w) * c), "with themselves"),
        "hard targets": (
            mixed(targets=lambda y, w: torch.eye(6)[(w * y + (1 - w) * y.roll(1, 0)).argmax(1)]),
            "hard again",
        ),
        "class numbers": (mixed(targets=lambda y, w: (w * y + (1 - w) * y.roll(1, 0)).argmax(1)), "not a third class"),
        "in place": (in_place, "changes the .* that it was given"),
        "weights of another shape": (lambda c, y, w: (w[:, None] * c, y), "your code raised|wrong in"),
        "no return": (lambda *_: None, "returned None"),
    },
)

# ---- 11.7


def each_axis(branch):
    return [1] * (branch.ndim - 1)


def by_comparison(branch, rate, training):
    if not training:
        return branch
    stays = torch.rand(len(branch), *each_axis(branch)) >= rate
    return branch * stays / (1 - rate)


def by_bernoulli(branch, rate, training):
    if not training or rate == 0:
        return branch
    return branch * branch.new_empty(branch.shape[0], *each_axis(branch)).bernoulli_(1 - rate).div(1 - rate)


def by_dropout(branch, rate, training):
    return branch * nn.functional.dropout(branch.new_ones(len(branch), *each_axis(branch)), rate, training)


def dropped(
    shape=lambda b: (len(b), *each_axis(b)), keeps=lambda draw, rate: draw >= rate, scale=lambda rate: 1 / (1 - rate)
):
    def solution(branch, rate, training):
        if not training or rate == 0:
            return branch
        return branch * keeps(torch.rand(shape(branch)), rate) * scale(rate)

    return solution


def seeded(branch, rate, training):
    torch.manual_seed(0)
    return by_comparison(branch, rate, training)


def written_into(branch, rate, training):
    if training and rate:
        branch[torch.rand(len(branch)) < rate] = 0
        branch /= 1 - rate
    return branch


def with_a_mask_of_float32(branch, rate, training):
    return branch * nn.functional.dropout(torch.ones(len(branch), *each_axis(branch)), rate, training)


def exact_share(branch, rate, training):
    if not training:
        return branch
    stays = torch.randperm(len(branch)) >= round(rate * len(branch))
    return branch * stays.reshape(-1, *each_axis(branch)) / (1 - rate)


def by_numpy(branch, rate, training):
    stays = torch.tensor(np.random.rand(len(branch), *each_axis(branch)) >= rate)
    return branch * stays / (1 - rate) if training else branch


def own_generator(branch, rate, training):
    stays = torch.rand(len(branch), 1, 1, generator=torch.Generator().manual_seed(0)) >= rate
    return branch * stays / (1 - rate) if training else branch


def module(function):
    """The module that calls this function in its forward."""

    class Module(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.rate = rate

        def forward(self, branch):
            return function(branch, self.rate, self.training)

    Module.__name__ = getattr(function, "__name__", "Module")
    return Module


class WithParameter(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate))

    def forward(self, branch):
        return by_comparison(branch, self.rate, self.training)


class DrawsWhenItIsMade(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate, self.stays = rate, torch.rand(4000) >= rate

    def forward(self, branch):
        if not self.training:
            return branch
        return branch * self.stays[: len(branch)].reshape(-1, *each_axis(branch)) / (1 - self.rate)


class Package(DropPath):
    pass


def of_three_axes(branch, rate, training):
    if not training:
        return branch
    return branch * (torch.rand(len(branch), 1, 1) >= rate) / (1 - rate)


class WithoutSuper(nn.Module):
    def __init__(self, rate):
        self.rate = rate


def unguarded(keeps=lambda draw, rate: draw >= rate, scale=lambda rate: 1 / (1 - rate), plus=lambda branch: 0):
    """As `dropped`, but without a way out for rate 0."""

    def solution(branch, rate, training):
        if not training:
            return branch
        stays = keeps(torch.rand(len(branch), *each_axis(branch)), rate)
        return plus(branch) + branch * stays * scale(rate)

    return module(solution)


test_stochastic_depth = run_cases(
    ch11.check_stochastic_depth,
    right=[Package, *map(module, (by_comparison, by_bernoulli, by_dropout))],
    wrong={
        "exactly a share": (module(exact_share), "on its own|same number"),
        "numpy's generator": (module(by_numpy), "the draw is not torch's"),
        "scaled by what stayed": (module(dropped(scale=lambda r: 1)), "not scaled"),
        "detached": (module(lambda b, r, t: by_comparison(b.detach(), r, t)), "no gradient reaches"),
        "the notebook's rate": (module(lambda b, r, t: by_comparison(b, 0.3 if r else r, t)), "at rate=0.8, "),
        "a generator with a seed": (module(own_generator), "two calls dropped the same clips"),
        "float32 whatever comes": (
            module(lambda b, r, t: by_comparison(b.float(), r, t)),
            "float64 comes back as torch.float32",
        ),
        "single values, as dropout": (module(lambda b, r, t: nn.functional.dropout(b, r, t)), "single values"),
        "tokens": (module(dropped(lambda b: (*b.shape[:2], 1))), "tokens were dropped"),
        "one coin for all": (module(dropped(lambda b: ())), "one coin|nothing was dropped"),
        "not scaled": (module(dropped(scale=lambda r: 1)), "not scaled"),
        "multiplied": (module(dropped(scale=lambda r: 1 - r)), "multiplied by 1 - rate"),
        "divided by rate": (module(dropped(scale=lambda r: 1 / r)), "divided by rate"),
        "rate is what stays": (module(dropped(keeps=lambda u, r: u < r)), "70 % of the clips"),
        "exchanged": (unguarded(keeps=lambda u, r: u < r), "70 % of the clips"),
        "divided by the rate itself": (unguarded(scale=lambda r: 1 / r), "divided by rate"),
        "always 0.3": (module(lambda b, r, t: by_comparison(b, 0.3, t)), "at rate 0 nothing is dropped"),
        "added to the branch": (unguarded(plus=lambda b: b), "the branch was added to what stays"),
        "no super": (WithoutSuper, "__init__ of your WithoutSuper must begin with super"),
        "a number per clip": (module(dropped(lambda b: len(b))), "one number per clip, shape"),
        "half of them": (module(dropped(keeps=lambda u, r: u < 0.5)), "expected were about 30%"),
        "at evaluation, too": (module(lambda b, r, t: by_comparison(b, r, True)), "clips were dropped: at evaluation"),
        "scaled at evaluation": (
            module(lambda b, r, t: b * (1 - r) if not t else by_comparison(b, r, t)),
            "older form",
        ),
        "divided at evaluation": (
            module(lambda b, r, t: b / (1 - r) if not t else by_comparison(b, r, t)),
            "only training scales",
        ),
        "never": (module(lambda b, r, t: b), "nothing was dropped"),
        "the same clips always": (module(seeded), "set no seed"),
        "in place": (module(written_into), "changes the .* that it was given"),
        "no return": (module(lambda *_: None), "None"),
        "a rate that learns": (WithParameter, "has parameters"),
        "drawn once": (DrawsWhenItIsMade, "dropped the same clips|at rate"),
        "no module": (lambda rate: by_comparison, "inherits from nn.Module"),
        "a mask of float32": (module(with_a_mask_of_float32), "bfloat16 comes back as torch.float32"),
        "axes of three": (module(of_three_axes), r"must match.*one number per clip, shape \[B, 1, …, 1\]"),
    },
)


# ---- the cells


def test_the_chapters_own_functions_are_right():
    chapter = load_definitions(checkout() / "notebooks" / "11_regularisation.ipynb")
    clips, labels, offsets = torch.rand(3, 1, 4, 4, 6), torch.tensor([1, 0, 2]), torch.tensor([[1, 0, -2]] * 3)
    assert torch.equal(chapter.shift(clips, offsets), warp.move(clips, offsets))
    torch.testing.assert_close(chapter.smooth(labels, 4, 0.2), mixing.soften(labels, 4, 0.2))
    weight = torch.rand(3)
    theirs = mixing.blend(clips, torch.eye(3), weight.reshape(-1, 1, 1, 1, 1))
    for ours, package in zip(chapter.mixup(clips, torch.eye(3), weight), theirs):
        torch.testing.assert_close(ours, package)
    sides = Mirror(3, (0, 2, 1))

    def by_chapter(clips, labels, generator):
        return chapter.mirror(clips, labels, sides, generator)

    def without_swap(clips, labels, generator):
        return chapter.mirror(clips, labels, sides, generator)[0], labels

    assert chapter.labels_follow(by_chapter, clips, labels, sides) is True
    assert chapter.labels_follow(without_swap, clips, labels, sides) is False
