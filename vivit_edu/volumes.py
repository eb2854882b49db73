"""What a data set is here: clips with labels in three splits, and the flip that swaps left and right."""

from dataclasses import dataclass

import torch

from .errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Mirror:
    """The flip that stays within a data set: along `axis` (1, 2 or 3 of a clip [C, T, H, W]) class k becomes class
    `permutation[k]`. A flip along any other axis mirrors an organ just as well, and also turns it round, into a
    position that no body has."""

    axis: int
    permutation: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled clips. `clips` uint8 [B, C, T, H, W], `labels` int64 [B]; if they are known, the
    `patients` they come from, int64 [B], and the `masks` of the organ, uint8 0 or 1, [B, T, H, W]."""

    clips: torch.Tensor
    labels: torch.Tensor
    patients: torch.Tensor | None = None
    masks: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: list[int] | slice | torch.Tensor) -> "Split":
        """The clips at `indices` (a list, a slice or a tensor) with everything that belongs to them."""
        fields = (self.clips, self.labels, self.patients, self.masks)
        return Split(*(None if field is None else field[indices] for field in fields))

    def to(self, device: torch.device | str) -> "Split":
        """The split with its clips and labels on a device; what training does not read stays where it is."""
        return Split(self.clips.to(device), self.labels.to(device), self.patients, self.masks)


@dataclass(frozen=True, eq=False)
class Volumes:
    """A data set in its three splits; no patient is in two of them. `mirror` is None if no class
    has a side: then every flip is allowed. `film`: T is time, which augmentation must not turn round.
    `files`: where each clip is a file, {its name: "SPLIT SHA-256"}."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    mirror: Mirror | None = None
    film: bool = False
    files: dict[str, str] | None = None


# ---- left and right -------------------------------------------------------------------------------


def find_mirror_axis(split: Split, right: int, left: int) -> int:
    """The axis of a clip [C, T, H, W] (1, 2 or 3) that mirrors class `right` into class `left`.

    The mean clip of one class is flipped along each axis and compared, by correlation, with the mean
    clip of the other. Some axis is always the best, even for noise. So we also ask each single clip
    which flip of the other class's mean it looks like. It doesn't vote if two are equally good. The axis
    must win by more than three standard deviations of a fair draw between it and the runner-up.

    Raises `DataError` where a class has no clips or no axis wins clearly.
    """
    rights, lefts = (split.clips[split.labels == k].float() for k in (right, left))  # [B, C, T, H, W]
    for k, clips in ((right, rights), (left, lefts)):
        if len(clips) == 0:
            raise DataError(f"Left and right cannot be told apart: the split has no clip of class {k}.")
    axes = (1, 2, 3)
    of_means, of_clips = [], []
    for axis in axes:
        flipped_right, flipped_left = rights.mean(0).flip(axis), lefts.mean(0).flip(axis)
        of_means.append(_correlation(lefts.mean(0, keepdim=True), flipped_right))  # [1]
        each = _correlation(lefts, flipped_right), _correlation(rights, flipped_left)
        of_clips.append(torch.cat(each))  # [B]
    likeness, choice = torch.stack(of_clips).topk(2, dim=0)  # [2, B]: the best axis of each clip and the next
    votes = torch.bincount(choice[0][likeness[0] - likeness[1] > 1e-4], minlength=3)  # [3]
    best = int(torch.cat(of_means).argmax())
    ours, runner_up = int(votes[best]), max(votes[:best].tolist() + votes[best + 1 :].tolist())
    if ours - runner_up <= 3 * (ours + runner_up) ** 0.5:
        raise DataError(
            f"No axis clearly turns class {right} into class {left}: the axes 1, 2, 3 get {votes.tolist()} "
            f"of {len(rights) + len(lefts)} votes. Are these a right and a left organ, and enough of them?"
        )
    return axes[best]


def _correlation(clips, pattern):
    """Pearson's correlation [B] of clips [B, C, T, H, W] with one pattern [C, T, H, W]; 0 for constants."""
    clips, pattern = clips.flatten(1), pattern.flatten()
    return torch.cosine_similarity(clips - clips.mean(1, keepdim=True), pattern - pattern.mean(), dim=1)


# ---- in words -------------------------------------------------------------------------------------


def describe(volumes: Volumes) -> str:
    """`volumes` as a table in plain text: clips of each class, patients, and the flip that swaps labels."""
    splits = [getattr(volumes, split) for split in SPLITS]
    counts = [torch.bincount(split.labels, minlength=len(volumes.class_names)).tolist() for split in splits]
    rows = list(zip(volumes.class_names, *counts))
    rows.append(("all clips", *(len(split) for split in splits)))
    patients = ("unknown" if split.patients is None else len(split.patients.unique()) for split in splits)
    rows.append(("patients", *patients))
    width = max(len(str(row[0])) for row in rows)
    shape = list(volumes.train.clips.shape[1:])
    lines = [f"{volumes.name}: clips [C, T, H, W] = {shape}, {len(volumes.class_names)} classes"]
    for head, *cells in (("", *SPLITS), *rows):
        lines.append(f"{head:<{width}}" + "".join(f"{cell:>9}" for cell in cells))
    if volumes.mirror is None:
        lines.append("No class has a side: every flip is free.")
    else:
        names, swap = volumes.class_names, volumes.mirror.permutation
        pairs = ", ".join(f"{names[k]} / {names[swap[k]]}" for k in range(len(names)) if k < swap[k])
        change = f"swaps the labels {pairs}" if pairs else "leaves every class as it is"
        lines.append(f"A flip along axis {volumes.mirror.axis} of a clip {change}.")
    return "\n".join(lines)
