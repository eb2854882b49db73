"""The bones of the synthetic torso: spine, ribs, hips and femora, added to a `Torso` as parts.

Coordinates and brightness are those of `anatomy.py`. Bones come last in the painting: nothing covers them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .solids import ellipsoid, rotation, tube, waves

if TYPE_CHECKING:
    from .anatomy import Torso

SIDES = (("right", -1), ("left", 1))


def skeleton(torso: Torso) -> None:
    """Add all bones; the two femora are labelled organs."""
    torso.marrow = torso.rng.uniform(120, 260)
    spine(torso)
    ribs(torso)
    hips(torso)


def bone(torso: Torso, shell: float, marrow: float) -> Callable:
    """Brightness of a bone: a hard shell of `shell` mm around spongy marrow (HU)."""
    spongy = waves(torso.rng, 9, 8)
    return lambda p, d: np.where(d > -shell, 700, marrow + 35 * spongy(p))


def spine(torso: Torso) -> None:
    """Bodies and arches repeat every 33 mm, with discs between; the sacrum at the end."""
    rng = torso.rng
    phase = rng.uniform(0, 33)

    def behind(p):  # distance behind the middle of the column, which bends with height
        bend = 10 * np.exp(-(((p[0] - 140) / 90) ** 2)) - 16 * np.clip((p[0] - 300) / 200, 0, 1)
        return p[1] - 52 + bend

    def from_middle(p):  # distance along z from the middle of the nearest body
        return np.abs((p[0] + np.float32(phase)) % 33 - 16.5)

    def column(p):
        return np.maximum(np.hypot(behind(p), p[2] * 0.82) - 18, 60 - p[0])

    def arch(p):
        y = behind(p)
        ring = np.abs(np.hypot(y - 25, p[2]) - 12) - 3
        spike = np.maximum(np.abs(p[2]) - 3.5, np.abs(y - 46) - 13)
        wings = np.maximum(np.abs(y - 22) - 4, np.abs(np.abs(p[2]) - 24) - 14)
        cross_section = np.minimum(np.minimum(ring, spike), wings)
        return np.maximum(cross_section, np.maximum(from_middle(p) - 9, 60 - p[0]))

    box = (np.array([55.0, 20, -45]), np.array([600.0, 130, 45]))
    torso.add((column, box), 80)  # discs: what the bodies leave open
    torso.add((lambda p: np.maximum(column(p), from_middle(p) - 13), box), bone(torso, 2.5, torso.marrow))
    torso.add((arch, box), 450)
    torso.add(ellipsoid((70, 66, 0), (55, 16, 48), rotation((0, 0, -0.45))), bone(torso, 2.5, torso.marrow))


def ribs(torso: Torso) -> None:
    """All ribs at once: slanting rings, cut out of a thin shell inside the chest wall."""
    pitch, slant = torso.rng.uniform(24, 29), np.float32(torso.rng.uniform(0.45, 0.75))
    shift = torso.rng.uniform(0, pitch)

    def shape(p):
        across = np.abs((p[0] + slant * p[1] + np.float32(shift)) % np.float32(pitch) - np.float32(pitch / 2))
        ring = np.hypot(torso.core(p, 7), np.maximum(across * np.float32(0.85) - 3, 0)) - np.float32(3.5)
        lowest = 215 + 60 * np.clip(-p[1] / 90, 0, 1)
        return np.maximum(np.maximum(ring, lowest - p[0]), 18 - np.abs(p[2]))

    box = (np.array([210.0, -125, -160]), np.array([540.0, 125, 160]))
    torso.add((shape, box), bone(torso, 1.5, torso.marrow))


def hips(torso: Torso) -> None:
    """The hip bones: a wing of the ilium, the socket of the joint and the bars in front and below, each side."""
    rng = torso.rng
    for side, sign in SIDES:
        head = torso.near((0, 4, sign * 92), 4)
        bowl, _ = ellipsoid((118, 5, sign * 25), (125, 78, 105))

        def wing(p, bowl=bowl, sign=sign):  # of the ilium: a curved plate, side and back of a bowl
            ends = np.maximum(12 - p[0], p[0] - 150 + np.float32(0.35) * np.abs(p[1] - 10))
            return np.maximum(np.abs(bowl(p)) - 5, np.maximum(ends, 55 - sign * p[2]))

        x = sorted((sign * 50.0, sign * 140.0))
        box = (np.array([5, -90, x[0]]), np.array([155, 95, x[1]]))
        torso.add((wing, box), bone(torso, 2.0, torso.marrow))
        cup, box = ellipsoid(head, (33, 33, 33))
        middle = np.float32(head)

        def socket(p, cup=cup, middle=middle, sign=sign):
            return np.maximum(np.maximum(np.abs(cup(p) + 3) - 4, sign * (p[2] - middle[2]) - 14), -20 - p[0])

        torso.add((socket, box), 600)
        seat = [head + (-8, 18, -sign * 14), (-62, 24, sign * 52), (-45, -38, sign * 12)]
        torso.add(tube(seat, (14, 12, 8)), bone(torso, 2.5, torso.marrow))
        front = [head + (8, -22, -sign * 18), (-12, -52, sign * 8)]
        torso.add(tube(front, (10, 9)), bone(torso, 2.5, torso.marrow))
        femur(torso, f"femur-{side}", sign, head, rng.uniform(21, 26))


def femur(torso: Torso, name: str, sign: int, head: np.ndarray, radius: float) -> None:
    """Head, neck and shaft: the head is spongy, the shaft a thick tube around fat marrow."""
    rng = torso.rng
    knee = head + torso.near((-190, -4, sign * 12), (0, 8, 8))
    bend = head + torso.near((-36, 6, sign * 40), 4)
    ball, ball_box = ellipsoid(head, np.full(3, radius))
    stem, stem_box = tube([head, bend, bend + (-30, 0, -sign * 4), knee], (14, 17, 16, 13))
    spongy, fatty = np.float32(rng.uniform(120, 320)), np.float32(rng.uniform(-60, 60))
    grain = bone(torso, 0, 0)

    def bright(p, d):
        shaft = np.clip((p[0] + 25) / -30, 0, 1)  # 0 in the head, 1 in the shaft
        return np.where(d > -1.5 - 4 * shaft, 700, spongy + (fatty - spongy) * shaft + grain(p, d - 9))

    box = (np.minimum(ball_box[0], stem_box[0]), np.maximum(ball_box[1], stem_box[1]))
    torso.organ(name, (lambda p: np.minimum(ball(p), stem(p)), box), bright)
