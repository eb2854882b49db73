"""`organphantom3d`: 201 synthetic CT patients, cropped organ by organ as OrganMNIST3D was.

Real medical volumes have to be downloaded, and nobody knows which voxels of OrganMNIST3D are the organ. Here
both are settled: the anatomy is a set of formulas (`anatomy.py`, `skeleton.py`, `solids.py`), so the course
runs without a network and an attention map can be measured against the organ's true mask.

Axes of every volume: slices from feet to head, rows from front to back, columns from the right to the left of
a patient who lies on the back. Flipping the LAST axis mirrors left and right, whichever way the patient lies.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ...support.files import written_whole
from ...support.npz import npz_arrays, npz_headers
from ...volumes import Volumes
from ..medmnist import ELSEWHERE, LAYOUT, as_volumes, is_data_file, read_splits
from .anatomy import Torso
from .solids import EVERYWHERE, rotation, turned, waves

SOURCES = ("__init__.py", "anatomy.py", "skeleton.py", "solids.py")  # of this folder, all there are
SEED = 2103_15691  # the ViViT paper's number on arXiv: any other makes another set of patients
PHANTOM_CLASSES = (
    "liver",
    "kidney-right",
    "kidney-left",
    "femur-right",
    "femur-left",
    "bladder",
    "heart",
    "lung-right",
    "lung-left",
    "spleen",
    "pancreas",
)
PATIENTS = {"train": range(115), "val": range(115, 131), "test": range(131, 201)}
# What each split holds in the file besides what MedMNIST's files hold.
PHANTOM_LAYOUT = LAYOUT | {"patients": ("int64", lambda n, s: (n,)), "masks": ("uint8", lambda n, s: (n, s, s, s))}
# How hard the set is. A linear model on the voxels lives on each organ being where it was in training: tight
# boxes that are off their organ take that away, and leave what a better model can still see.
TURN_SD = (0.13, 0.085, 0.085)  # radians, around the three axes
PRONE = 0.03  # share of patients who lie face down: half a turn around the first axis
SHIFT_SD = 0.155  # how far a box is off its organ, in parts of the organ
ZOOM = (0.6, 0.9)  # a box's size, in parts of the organ's
STRETCH_SD = 0.07
NOISE_HU = 12
WINDOW = (-200.0, 260.0)  # HU; with it fat, water, muscle and liver are as bright as in real crops


class Scan(NamedTuple):
    """How one patient lies in the scanner and what the scanner sees."""

    torso: Torso
    pose: np.ndarray  # [3, 3] from scanner to body axes, with the patient's size in it
    centre: np.ndarray  # [3] mm, the scanner's origin in the body
    warp: tuple  # three smooth fields: nobody is built of perfect ellipsoids
    view: tuple[float, float]  # mm along the first axis: lower and upper end of the scan
    slice_mm: float
    blur_mm: float
    noise_hu: float


def fingerprint(folder: Path = Path(__file__).parent) -> str:
    """SHA-256 of the sources that decide every voxel: a file that other sources drew is drawn again.

    Raises FileNotFoundError where one of them is missing.
    """
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in SOURCES)).hexdigest()


def load_phantom(size: int, path: Path) -> Volumes:
    """Load the phantom from the file at `path` if this generator wrote it, else generate it and keep it there.

    size: 28 or 64. Returns clips uint8 [N, 1, size, size, size] with patients and masks. Raises DataError where the
    file is missing and cannot be written.
    """
    generator, arrays = fingerprint(), None
    if is_data_file(path):
        try:
            npz_headers(path, ["generator"])
            if str(npz_arrays(path, ["generator"])["generator"]) == generator:
                arrays = read_splits(path, size, PHANTOM_LAYOUT, len(PHANTOM_CLASSES))
            else:
                print(f"{path.name} is of another version: it is generated again.", file=sys.stderr)
        except DataError as fault:
            print(f"{fault} It is generated again.", file=sys.stderr)
    if arrays is None:
        with written_whole(path, elsewhere=ELSEWHERE) as file:  # opened first: a read-only folder is known at once
            arrays = generate_phantom(size)
            np.savez_compressed(file, generator=np.array(generator), **arrays)
    return as_volumes("organphantom3d", PHANTOM_CLASSES, arrays)


def scan(number: int) -> Scan:
    """Patient `number`'s body and scan settings; each patient has a generator of its own."""
    rng = np.random.default_rng((SEED, number))
    prone = rng.random() < PRONE
    torso = Torso(rng, PHANTOM_CLASSES, prone)
    size = rng.normal(1.0, 0.07) * rng.normal(1.0, 0.04, 3)
    turn = rng.normal(0, TURN_SD)
    turn[0] += np.pi * prone
    pose = rotation(turn) / np.float32(size)[:, None]
    warp = tuple((waves(rng, 220), waves(rng, 75)) for _ in range(3))
    kind = rng.choice(3, p=(0.42, 0.38, 0.20))  # abdomen; abdomen and pelvis; chest to pelvis
    low = rng.uniform(60, 150) if kind == 0 else rng.uniform(-95, -35)
    high = rng.uniform(500, 550) if kind == 2 else rng.uniform(325, 430)
    return Scan(
        torso,
        pose,
        np.float32((200, 0, 0)),
        warp,
        (low - 200.0, high - 200.0),
        slice_mm=float(rng.choice((1.0, 1.5, 2.5, 5.0), p=(0.35, 0.25, 0.2, 0.2))),
        blur_mm=float(rng.uniform(1.0, 3.0)),
        noise_hu=float(np.clip(rng.lognormal(np.log(NOISE_HU), 0.5), 6, 60)),
    )


def body_points(patient: Scan, axes: list[np.ndarray]) -> np.ndarray:
    """Body coordinates [3, N] of the scanner grid spanned by three axes (mm)."""
    grid = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")]).astype(np.float32)
    p = turned(patient.pose, grid) + patient.centre[:, None]
    bent = [np.float32(5) * slow(p) + np.float32(1.6) * fast(p) for slow, fast in patient.warp]
    return p + np.stack(bent)


def points_within(p: np.ndarray, bounds: tuple, margin: float = 3.0) -> np.ndarray:
    """Indices of the points inside a box."""
    near = np.arange(p.shape[1])
    for row, low, high in zip(p, *bounds):
        row = row[near]
        near = near[(row > low - margin) & (row < high + margin)]
    return near


def paint_patient(patient: Scan, axes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What the scanner would see without noise: HU float32 and labels (0, or 1 + class) uint8, [Z, Y, X]."""
    p = body_points(patient, axes)
    low, high = p.min(1) - 8, p.max(1) + 8
    hu, labels = np.zeros(p.shape[1], np.float32), np.zeros(p.shape[1], np.uint8)
    # From the last part painted to the first: what is already covered need not be computed at all.
    light = np.ones(p.shape[1], np.float32)  # share of each voxel that is still bare
    named = np.zeros(p.shape[1], bool)
    bare = np.arange(p.shape[1])
    for part in reversed(patient.torso.parts):
        if (part.bounds[0] > high).any() or (part.bounds[1] < low).any():
            continue
        near, q = slice(None), p
        if part.bounds is not EVERYWHERE:
            near = points_within(p, part.bounds)
            q = p[:, near]
        distance = part.shape(q)
        touched = np.flatnonzero(distance < patient.blur_mm / 2)
        if not len(touched):
            continue
        distance, seen = distance[touched], bare[near][touched]
        value = part.hu(q[:, touched], distance) if callable(part.hu) else part.hu
        cover = np.clip(0.5 - distance / patient.blur_mm, 0, 1)  # soft edge
        hu[seen] += light[seen] * cover * value
        light[seen] *= 1 - cover
        inside = seen[(distance < 0) & ~named[seen]]
        labels[inside], named[inside] = part.label, True
        left = np.flatnonzero(light[bare] > 0)
        if len(left) < 0.9 * len(bare):
            bare, p = bare[left], p[:, left]
    hu -= 1000 * light  # air around the patient
    shape = [len(a) for a in axes]
    return hu.reshape(shape), labels.reshape(shape)


def window(hu: np.ndarray) -> np.ndarray:
    """HU to uint8: everything below the window is 0, everything above it 255."""
    low, high = WINDOW
    return np.uint8(np.clip((hu - low) / (high - low), 0, 1) * 255 + 0.5)


def organ_box(patient: Scan, name: str) -> np.ndarray | None:
    """The organ's bounding box, [2, 3] mm, cut at the scan's ends; None where too little of it is seen."""
    shape, (low, high) = patient.torso.organs[name]
    corners = np.stack(np.meshgrid(*zip(low, high), indexing="ij")).reshape(3, -1)
    corners = np.linalg.inv(patient.pose) @ (corners - patient.centre[:, None])
    low, high = corners.min(1) - 8, corners.max(1) + 8
    if name.startswith("femur"):
        low[0] = max(low[0], high[0] - 125)  # only the upper end of the bone is labelled
    axes = [np.linspace(a, b, 24) for a, b in zip(low, high)]
    inside = np.argwhere((shape(body_points(patient, axes)) < 0).reshape(24, 24, 24))
    if not len(inside):
        return None
    step = (high - low) / 23
    box = np.stack([low + step * (inside.min(0) - 0.5), low + step * (inside.max(0) + 0.5)])
    height = box[1, 0] - box[0, 0]
    box[:, 0] = np.clip(box[:, 0], *patient.view)
    return box if box[1, 0] - box[0, 0] > 0.35 * height else None


def voxel_axes(box: np.ndarray, size: int) -> list[np.ndarray]:
    """Centres of the voxels along each axis (mm) when a box [2, 3] is cut in size x size x size of them."""
    return [low + (high - low) * (np.arange(size) + 0.5) / size for low, high in zip(*box)]


def organ_share(patient: Scan, name: str, box: np.ndarray) -> float:
    """How much of a box the organ fills, 0 to 1; on one grid, so that every `size` has the same crops."""
    shape, _ = patient.torso.organs[name]
    return float((shape(body_points(patient, voxel_axes(box, 16))) < 0).mean())


def patient_crops(number: int, size: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """All crops of one patient: (class, image uint8 [s, s, s], mask uint8 [s, s, s])."""
    patient, crops = scan(number), []
    for label, name in enumerate(PHANTOM_CLASSES):
        rng = np.random.default_rng((SEED, number, label))
        if rng.random() < 0.06:  # not every organ was marked in every patient
            continue
        box = organ_box(patient, name)
        if box is None:
            continue
        extent = box[1] - box[0]
        middle = box.mean(0) + extent * rng.normal(0, SHIFT_SD, 3).clip(-1.6 * SHIFT_SD, 1.6 * SHIFT_SD)
        half = extent / 2 * np.exp(rng.uniform(*np.log(ZOOM)) + rng.normal(0, STRETCH_SD, 3))
        box = np.stack([middle - half, middle + half])
        box[:, 0] = np.clip(box[:, 0], *patient.view)
        if organ_share(patient, name, box) < 0.01:  # the box has missed a thin organ
            continue
        axes = voxel_axes(box, size)
        image, labels = scanned(patient, axes, rng)
        crops.append((label, window(image), np.uint8(labels == label + 1)))
    return crops


def scanned(patient: Scan, axes: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint the patient with the scanner's noise; thick slices are scanned where they lie and interpolated between."""
    slices = axes[0]
    count = int(np.ceil((slices[-1] - slices[0]) / patient.slice_mm)) + 1
    if count < len(slices):
        axes = [np.linspace(slices[0], slices[-1], max(count, 2)), *axes[1:]]
    hu, labels = paint_patient(patient, axes)
    hu += rng.normal(0, patient.noise_hu, hu.shape).astype(np.float32)
    if count < len(slices):
        at = np.linspace(0, len(hu) - 1, len(slices))
        below = np.minimum(at.astype(int), len(hu) - 2)
        part = np.float32(at - below)[:, None, None]
        hu = hu[below] * (1 - part) + hu[below + 1] * part
        labels = labels[np.rint(at).astype(int)]
    return hu, labels


def generate_phantom(size: int = 28, *, progress: bool = True) -> dict[str, np.ndarray]:
    """The whole set, as MedMNIST stores its own: `{train,val,test}_{images,labels,patients,masks}`.

    images uint8 [N, size, size, size], labels uint8 [N, 1] (index in `PHANTOM_CLASSES`), patients int64 [N],
    masks uint8 [N, size, size, size] (1 where the voxel is the crop's organ). Axes: feet to head, front to
    back, right to left. No patient is in two splits, and the arrays are the same on every run. 28 takes about
    half a minute, 64 some minutes.
    """
    from tqdm.auto import tqdm

    arrays = {}
    with tqdm(total=201, desc=f"organphantom3d {size}", unit="patient", disable=not progress) as bar:
        for split, numbers in PATIENTS.items():
            rows = []
            for number in numbers:
                rows += [(*crop, number) for crop in patient_crops(number, size)]
                bar.update()
            labels, images, masks, patients = zip(*rows)
            arrays[f"{split}_images"] = np.stack(images)
            arrays[f"{split}_labels"] = np.array(labels, np.uint8)[:, None]
            arrays[f"{split}_patients"] = np.array(patients, np.int64)
            arrays[f"{split}_masks"] = np.stack(masks)
    return arrays


def phantom_patient(number: int, *, spacing: float = 4.0) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """One patient's whole scan to scroll through: volume uint8 and labels uint8 [Z, Y, X], spacing (mm).

    `number` is 0 to 200, as in the `patients` of the set. Labels are 0 for background and 1 + the index in
    `PHANTOM_CLASSES` for an organ.
    """
    patient = scan(number)
    low, high = patient.view
    axes = [np.arange(low, high, spacing), np.arange(-160, 160, spacing), np.arange(-210, 210, spacing)]
    hu, labels = scanned(patient, axes, np.random.default_rng((SEED, number, 99)))
    return window(hu), labels, (spacing,) * 3
