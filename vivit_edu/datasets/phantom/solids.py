"""Solids made of formulas: signed distances to ellipsoids, tubes, winding threads, and how they combine.

Points are float32 arrays `[3, N]` in millimetres, in the order of a volume's axes (z, y, x). A shape is a
function `points [3, N] -> distance [N]`, negative inside; a solid is a shape with a box around it. A distance
says more than whether a point is inside or outside: it gives soft edges, shells (`abs(d) - thickness`), unions
(`minimum`) and intersections (`cut`), at any resolution.

Sums over the three axes are written out, not left to `@`: a matrix product may round differently with another
number of threads, and the phantom has to be the same on every run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

Shape = Callable[[np.ndarray], np.ndarray]
Solid = tuple[Shape, tuple[np.ndarray, np.ndarray]]
Tone = float | np.ndarray  # HU: one number, or one for each point
EVERYWHERE = (np.full(3, -1e4), np.full(3, 1e4))


def length(v: np.ndarray) -> np.ndarray:
    """Length of each vector: [3, N] -> [N]."""
    return np.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])


def turned(matrix: np.ndarray, p: np.ndarray) -> np.ndarray:
    """`matrix` [3, 3] times each point: [3, N] -> [3, N]."""
    return np.stack([row[0] * p[0] + row[1] * p[1] + row[2] * p[2] for row in matrix])


def rotation(angles: ArrayLike) -> np.ndarray:
    """Rotation matrix [3, 3] float32 by `angles` (radians) around the axes z, y and x in turn."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        matrix = step @ matrix
    return np.float32(matrix)


def ellipsoid(centre: ArrayLike, radii: ArrayLike, turn: np.ndarray | None = None) -> Solid:
    """An ellipsoid; `turn` is a rotation matrix into its own axes. The distance is value over gradient."""
    centre, radii = np.float32(centre), np.float32(radii)

    def shape(p):
        q = p - centre[:, None]
        if turn is not None:
            q = turned(turn, q)
        q /= radii[:, None]
        k0 = length(q)
        q /= radii[:, None]
        return k0 * (k0 - 1) / (length(q) + np.float32(1e-6))

    reach = radii if turn is None else np.full(3, radii.max())
    return shape, (centre - reach, centre + reach)


def tube(points: ArrayLike, radii: ArrayLike) -> Solid:
    """A bent tube through `points` [K, 3] with `radii` [K]: round cones end to end."""
    points, radii = np.float32(points), np.float32(radii)

    def shape(p):
        nearest = np.full(p.shape[1], np.inf, np.float32)
        for a, b, ra, rb in zip(points, points[1:], radii, radii[1:]):
            q, ab = p - a[:, None], b - a
            along = np.clip((ab[0] * q[0] + ab[1] * q[1] + ab[2] * q[2]) / (ab * ab).sum(), 0, 1)
            q -= ab[:, None] * along
            np.minimum(nearest, length(q) - (ra + (rb - ra) * along), out=nearest)
        return nearest

    return shape, (points.min(0) - radii.max(), points.max(0) + radii.max())


def cut(a: np.ndarray, b: np.ndarray, soft: float = 8.0) -> np.ndarray:
    """Intersection of two distances, its edge rounded over about `soft` mm."""
    overlap = np.maximum(soft - np.abs(a - b), 0)
    return np.maximum(a, b) + overlap * overlap / (4 * soft)


def toned(inside: Tone, outside: Tone, distance: np.ndarray, soft: float = 2.5) -> np.ndarray:
    """Two brightnesses, blended over `soft` mm about distance 0."""
    share = np.clip(0.5 - distance / np.float32(soft), 0, 1)
    return np.float32(outside) + np.float32(inside - outside) * share


def waves(rng: np.random.Generator, wavelength: float, count: int = 4) -> Shape:
    """A smooth random field of about unit size: plane waves in random directions, `wavelength` in mm."""
    k = rng.normal(size=(count, 3))
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    k = np.float32(k * 2 * np.pi / (wavelength * rng.uniform(0.7, 1.4, (count, 1))))
    phases, scale = np.float32(rng.uniform(0, 2 * np.pi, count)), np.float32((2 / count) ** 0.5)

    def field(p):
        total = np.zeros(p.shape[1], np.float32)
        for direction, phase in zip(k, phases):
            total += np.sin(direction[0] * p[0] + direction[1] * p[1] + direction[2] * p[2] + phase)
        return total * scale

    return field


def strings(rng: np.random.Generator, spacing: float, radius: float) -> Shape:
    """Thin winding threads all through space, about `spacing` mm apart: vessels in lung, liver and fat.

    The points where one random field is zero form a surface; those where two are zero at once form a curve.
    """
    f, g = waves(rng, 2 * spacing), waves(rng, 2 * spacing)
    slope = np.float32(spacing / np.pi)  # a field times this is about the distance to its zero
    return lambda p: np.hypot(f(p), g(p)) * slope - np.float32(radius)
