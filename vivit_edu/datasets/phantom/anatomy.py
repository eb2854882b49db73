"""The torso of one synthetic patient, drawn at random, as a list of parts to paint.

Coordinates are millimetres in the body, in the order of a volume's axes: `z` from feet to head (0 at the hip
joints), `y` from front to back, `x` from the patient's right to left (both 0 in the middle). Brightness is in
Hounsfield units (HU): air -1000, fat -100, water 0, muscle 55, bone above 300.

A patient is painted like a picture in oils, one part over the other: fat over skin, bowel over fat, bone at
the end. Left and right are drawn by the same lines of code with `sign` -1 and 1, so they mirror each other;
what tells them apart is what lies next to them, as in real bodies: liver, spleen, heart, stomach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .skeleton import SIDES, skeleton
from .solids import EVERYWHERE, Shape, Solid, cut, ellipsoid, rotation, strings, toned, tube, turned, waves

HEIGHTS = (-200, -60, 20, 170, 340, 440, 540)  # where the torso's width and depth are given, mm
HALF_WIDTHS = (155, 155, 156, 134, 146, 140, 85)
HALF_DEPTHS = (92, 94, 98, 92, 104, 96, 55)
# HU of each tissue without contrast agent, in the arterial, the portal venous and the late phase
PHASES = {
    "aorta": (42, 290, 155, 115),
    "blood": (42, 260, 172, 120),  # in the heart
    "vein": (32, 112, 165, 128),
    "myocardium": (45, 110, 105, 85),
    "cortex": (34, 215, 215, 175),  # of the kidneys
    "medulla": (30, 85, 180, 200),
    "liver": (62, 76, 105, 90),
    "spleen": (48, 140, 138, 112),
    "pancreas": (38, 100, 80, 62),
    "bowel": (35, 80, 75, 60),
    "urine": (8, 8, 10, 260),
}
PHASE_SHARES = (0.08, 0.14, 0.64, 0.14)


class Part(NamedTuple):
    """One thing to paint: where, how bright (a number or `(points, distance) -> [N]`), and as which label."""

    shape: Shape
    hu: float | Callable
    label: int  # 1 + the class index of a labelled organ, else 0
    bounds: tuple  # a box that holds the shape: parts out of sight need not be computed


def torso_core(p: np.ndarray, inset: float = 0.0, forward: float = 0.0) -> np.ndarray:
    """Distance to the muscular core of the torso, an ellipse whose axes change with height."""
    half_width = np.float32(np.interp(p[0], HEIGHTS, HALF_WIDTHS) - inset)
    half_depth = np.float32(np.interp(p[0], HEIGHTS, HALF_DEPTHS) - inset)
    y, x = (p[1] + np.float32(forward)) / half_depth, p[2] / half_width
    k0 = np.hypot(x, y)
    return k0 * (k0 - 1) / (np.hypot(x / half_width, y / half_depth) + np.float32(1e-6))


def contrast(rng: np.random.Generator) -> dict[str, np.float32]:
    """Brightness (HU) of each tissue in one patient: a contrast phase, or something between two of them."""
    first, second = rng.choice(4, size=2, p=PHASE_SHARES)
    mixed = rng.beta(0.25, 0.6)
    values = np.array(list(PHASES.values()))
    values = (1 - mixed) * values[:, first] + mixed * values[:, second]
    values = values * rng.uniform(0.93, 1.07, len(values)) + rng.normal(0, 3, len(values))
    hu = dict(zip(PHASES, np.float32(values)))
    hu["muscle"], hu["fat"] = np.float32(rng.normal((58, -97), (8, 9)))
    hu["spleen patches"] = np.float32(30 if 1 in (first, second) else 4)  # an arterial spleen is patchy
    return hu


class Torso:
    """One patient's body: `parts` in painting order, and the labelled solids as `organs` by class name."""

    def __init__(self, rng: np.random.Generator, classes: tuple[str, ...], prone: bool) -> None:
        self.rng = rng
        self.label = {name: i + 1 for i, name in enumerate(classes)}
        self.up = 1 if prone else -1  # the side to which gas rises, along y
        self.parts: list[Part] = []
        self.organs: dict[str, Solid] = {}
        self.breath = rng.normal(0, 10)  # mm by which the diaphragm and what hangs on it are moved
        self.hu = contrast(rng)
        for draw in (
            self.wall,
            self.lungs,
            self.heart,
            self.bowel,
            self.liver,
            self.spleen,
            self.pancreas,
            self.kidneys,
            self.pelvis,
        ):
            draw()
        skeleton(self)

    def add(self, solid: Solid, hu: float | Callable, label: int = 0) -> None:
        """Paint a solid over everything so far."""
        self.parts.append(Part(solid[0], hu, label, solid[1]))

    def organ(self, name: str, solid: Solid, hu: float | Callable) -> None:
        """Paint a labelled organ, and remember its solid under its class name."""
        self.organs[name] = solid
        self.add(solid, hu, self.label[name])

    def near(self, centre: ArrayLike, spread: ArrayLike) -> np.ndarray:
        """A point [3] around `centre`, normally distributed (mm)."""
        return np.asarray(centre, float) + self.rng.normal(0, 1, 3) * spread

    core = staticmethod(torso_core)

    def cavity(self, p: np.ndarray, inset: float = 0.0) -> np.ndarray:
        """Distance to the inside of the chest and belly."""
        return torso_core(p, self.wall_mm + inset, 6.0)

    def wall(self) -> None:
        """Skin, fat under it, muscle, and the fat with its vessels between the organs."""
        rng, hu = self.rng, self.hu
        fat = rng.uniform(5, 34)
        belly = np.float32(fat * rng.uniform(0.2, 0.9))
        mottle = strings(rng, 26, 1.0)

        def skin(p):
            front = np.clip(-p[1] / 90, 0, 1) * np.exp(-(((p[0] - 150) / 120) ** 2))
            return torso_core(p) - np.float32(fat) - belly * front

        self.add((skin, EVERYWHERE), lambda p, d: np.where(d > -2.5, 20, toned(-20, hu["fat"], mottle(p))))
        seams, gap = waves(rng, 60, 7), np.float32(rng.uniform(0.5, 4))

        def muscle(p, d):  # fat in the seams between the muscles of hip and thigh
            seam = np.abs(seams(p)) * 12 - gap + np.clip((p[0] - 60) / 8, 0, 99) + np.clip(4 + d, 0, 4) * 3
            return toned(hu["fat"], hu["muscle"], seam)

        self.add((torso_core, EVERYWHERE), muscle)
        self.wall_mm = rng.uniform(12, 20)
        vessels = strings(rng, 16, rng.uniform(1.5, 3.5))
        self.add(
            (lambda p: cut(self.cavity(p), -25 - p[0]), EVERYWHERE),
            lambda p, d: toned(hu["vein"], hu["fat"] + 4, vessels(p)),
        )

    def lungs(self) -> None:
        """Both lungs over the dome of the diaphragm, and the great vessels into them."""
        rng, hu = self.rng, self.hu
        self.dome_top = {side: 312 - 6 * sign + self.breath + rng.normal(0, 8) for side, sign in SIDES}
        self.dome_width = {side: rng.uniform(48, 66) for side, _ in SIDES}
        for side, sign in SIDES:
            gap, air = rng.uniform(14, 24), rng.uniform(-880, -780)
            vessels, fine = strings(rng, 26, 2.6), strings(rng, 13, 1.1)

            def lung(p, side=side, sign=sign, gap=gap):
                beside = cut(self.cavity(p), gap - sign * p[2], 14)
                apex = p[0] - 505 + ((p[2] - sign * 60) / 45) ** 2 * 25
                return cut(cut(beside, (self.dome(p, side) - p[0]) * 0.75, 6), apex, 20)

            def bright(p, d, air=air, vessels=vessels, fine=fine):
                return toned(hu["vein"], air, np.minimum(vessels(p), fine(p)))

            low, high = np.array([180.0, -125, -10]), np.array([530.0, 125, 160])
            if sign < 0:
                low[2], high[2] = -160, 10
            self.organ(f"lung-{side}", (lung, (low, high)), bright)
        for _, sign in SIDES:  # the great vessels into each lung
            root = self.near((385, 8, sign * 18), 4)
            ends = [root, root + [8, 6, sign * 28], root + [-30, 18, sign * 50]]
            self.add(tube(ends, (11, 8, 4)), hu["blood"])

    def dome(self, p: np.ndarray, side: str) -> np.ndarray:
        """Height of one half of the diaphragm: lung lies over it, liver and spleen under it."""
        x = (p[2] - dict(SIDES)[side] * 62) / np.float32(self.dome_width[side])
        return np.float32(self.dome_top[side]) - x * x * 30 - ((p[1] + 8) / 70) ** 2 * 36

    def under_dome(self, p: np.ndarray) -> np.ndarray:
        """Distance to the space below the diaphragm."""
        return p[0] - np.maximum(self.dome(p, "right"), self.dome(p, "left")) + 4

    def heart(self) -> None:
        """The heart in its fat, its chambers, windpipe and gullet."""
        rng, hu = self.rng, self.hu
        turn = rotation(rng.normal((0.5, 0.25, 0.3), 0.15))
        size = rng.uniform(0.85, 1.2)
        centre = self.near((356 + 0.6 * self.breath, -26, 20), (8, 5, 8))
        radii = np.array((46, 42, 58)) * size * rng.uniform(0.93, 1.07, 3)
        self.add(ellipsoid(centre, radii + rng.uniform(3, 9), turn), hu["fat"])
        self.organ("heart", ellipsoid(centre, radii, turn), hu["myocardium"])
        chambers = (((4, 5, 22), (24, 20, 28)), ((4, -20, -6), (22, 12, 30)), ((6, 12, -28), (24, 20, 16)))
        for offset, chamber in chambers:
            at = centre + turn.T @ (np.array(offset) * size)
            self.add(ellipsoid(at, np.array(chamber) * size, turn), hu["blood"], self.label["heart"])
        self.add(tube([(560, 0, 0), (400, 18, 3)], (9, 8)), -950)  # windpipe
        self.add(tube([(450, 28, 6), (320, 24, 12)], (8, 8)), 40)  # gullet

    def bowel(self) -> None:
        """Stomach and bowel: they look like anything, are labelled as nothing, and lie everywhere."""
        rng = self.rng
        for _ in range(rng.integers(32, 50)):
            start = rng.uniform((40, -70, -100), (225, 25, 100))
            points = start + np.cumsum(rng.normal(0, 22, (4, 3)), axis=0)
            shape, box = tube(points, rng.uniform(8, 19) * rng.uniform(0.8, 1.2, 4))
            inside = (lambda p, shape=shape: np.maximum(shape(p), self.cavity(p, 1.0)), box)
            filling = rng.choice((20, 50, -100, 280), p=(0.5, 0.3, 0.1, 0.1))
            self.hollow(inside, points[:, 1].mean(), 10, filling, gas=0.25)
        centre = self.near((262 + self.breath, -28, 52), 9)
        radii = np.array((42, 32, 40)) * rng.uniform(0.7, 1.2, 3)
        filling = rng.choice((15, 35, 60, 250), p=(0.45, 0.25, 0.2, 0.1))
        stomach = ellipsoid(centre, radii, rotation(rng.normal(0, 0.3, 3)))
        self.hollow(stomach, centre[1], radii[1], filling, gas=0.7)

    def hollow(self, solid: Solid, middle: float, half: float, filling: float, gas: float) -> None:
        """A hollow organ: wall, filling and, with probability `gas`, air above a level surface."""
        height = half * self.rng.uniform(-0.6, 1.2) if self.rng.random() < gas else 1e4
        level = middle + self.up * height

        def bright(p, d):
            content = np.where((p[1] - level) * self.up > 0, -900, filling)
            return np.float32(np.where(d > -3, self.hu["bowel"], content))

        self.add(solid, bright)

    def liver(self) -> None:
        """The liver under the right half of the diaphragm, with its vessels."""
        rng, hu = self.rng, self.hu
        edge = 178 + self.breath + rng.normal(0, 16)
        slope, back, left = rng.uniform(0.45, 0.75), rng.uniform(0.1, 0.5), rng.uniform(20, 75)

        def shape(p):
            upper = cut(self.cavity(p, 2.0), self.under_dome(p), 10)
            under = np.float32(slope) * (p[2] + 115) + np.float32(back) * (p[1] + 10)
            lower = np.float32(edge) + under - p[0]
            return cut(cut(upper, lower * 0.8, 18), p[2] - np.float32(left), 16)

        vessels = strings(rng, 27, 3.2)
        box = (np.array([120.0, -120, -160]), np.array([350.0, 120, left + 5]))

        def bright(p, d):
            return toned(hu["vein"], hu["liver"], np.maximum(vessels(p), d + 8))

        self.organ("liver", (shape, box), bright)
        for _ in range(rng.choice((0, 1, 3, 6), p=(0.5, 0.2, 0.2, 0.1))):  # tumours, cut off at the surface
            lump, box = ellipsoid(self.near((265, 0, -75), 30), rng.uniform(5, 20, 3))
            inside = (lambda p, lump=lump: np.maximum(lump(p), shape(p) + 1), box)
            self.add(inside, hu["liver"] - rng.uniform(20, 60), self.label["liver"])
        gall_bladder = ellipsoid(self.near((215 + self.breath, -30, -52), 8), (20, 12, 12))
        self.add(gall_bladder, rng.uniform(5, 20))

    def spleen(self) -> None:
        """The spleen under the left half of the diaphragm."""
        rng, hu = self.rng, self.hu
        turn = rotation(rng.normal((0.5, 0.1, 0.25), 0.25))
        centre = self.near((262 + self.breath, 34, 84), (9, 6, 5))
        radii = np.array((48, 40, 25)) * rng.uniform(0.75, 1.25) * rng.uniform(0.85, 1.15, 3)
        whole, box = ellipsoid(centre, radii, turn)
        dent, _ = ellipsoid(centre + turn.T @ (radii * (0, -0.25, -1.15)), radii * (0.8, 0.8, 0.7), turn)
        notches, patches = waves(rng, 45), waves(rng, 16)

        def shape(p):
            d = np.maximum(cut(whole(p), -dent(p), 6) + 1.5 * notches(p), self.cavity(p, 2.0))
            return cut(d, self.under_dome(p), 4)

        self.organ("spleen", (shape, box), lambda p, d: hu["spleen"] + hu["spleen patches"] * patches(p))

    def pancreas(self) -> None:
        """The pancreas: a bent tube with lobes, from the middle to the spleen."""
        rng, hu = self.rng, self.hu
        head = self.near((200 + self.breath * 0.6, 2, -32), 7)
        tail = self.near((248 + self.breath, 30, 74), (14, 8, 10))
        neck = head + self.near((22, -12, 26), 5)
        body = (neck + tail) / 2 + self.near((6, -12, 0), 5)
        radii = np.array((10, 15, 9, 10, 9)) * rng.uniform(0.7, 1.2)
        smooth, box = tube([head + (-18, 4, 4), head, neck, body, tail], radii)
        lobes, fatty = waves(rng, 15), rng.uniform(0.4, 1.1)
        self.organ(
            "pancreas",
            (lambda p: smooth(p) + np.float32(2.2) * lobes(p), box),
            lambda p, d: np.where(lobes(p) > fatty, -60, hu["pancreas"]),
        )

    def kidneys(self) -> None:
        """Kidneys, the vessels between them and the muscles they lie on."""
        rng, hu = self.rng, self.hu
        aorta = [(455, 0, -14), (462, 14, 6), (430, 30, 14), (250, 22, 8), (115, 18, 2)]
        self.add(tube(aorta, (13, 13, 11, 10, 8)), hu["aorta"])
        self.add(tube([(330, 10, -22), (250, 20, -20), (115, 22, -12)], (11, 11, 10)), hu["vein"])
        size = rng.uniform(0.82, 1.2)
        for side, sign in SIDES:
            psoas = [(235, 46, sign * 24), (150, 42, sign * 42), (20, -12, sign * 72)]
            self.add(tube(psoas, (8, 20, 17)), hu["muscle"])
            # the right one hangs lower, under the liver; upper poles lean to the spine
            centre = np.float32(self.near((186 + 0.7 * self.breath + 6 * sign, 36, sign * 63), (12, 6, 5)))
            radii = np.array((54, 25, 29)) * size * rng.uniform(0.87, 1.13, 3)
            lean = rng.normal((0.35, 0.22, 0.2), (0.2, 0.1, 0.12)) * (sign, sign, 1)
            self.kidney(f"kidney-{side}", sign, centre, radii, rotation(lean))
            hilum = centre - (0, 4, sign * 16)
            self.add(tube([hilum, hilum * (1, 0.5, 0.35)], (5, 5)), hu["vein"])
            if rng.random() < 0.25:  # a cyst
                lump = ellipsoid(centre + rng.normal(0, 0.6, 3) * radii, np.full(3, rng.uniform(6, 16)))
                self.add(lump, rng.uniform(0, 15), self.label[f"kidney-{side}"])

    def kidney(self, name: str, sign: int, centre: np.ndarray, radii: np.ndarray, turn: np.ndarray) -> None:
        """A bean: an ellipsoid bent around its fatty sinus, with a bright cortex and darker pyramids."""
        rng, hu = self.rng, self.hu
        bend = np.float32(sign * rng.uniform(0.08, 0.2) / radii[0])
        outer, _ = ellipsoid((0, 0, 0), radii)
        sinus, _ = ellipsoid((0, -4, -sign * radii[2] * 0.55), radii * (0.5, 0.42, 0.62))
        pyramids, cortex = waves(rng, 26, 5), rng.uniform(5, 9)

        def own(p):
            q = turned(turn, p - centre[:, None])
            q[2] += bend * q[0] * q[0] - 3 * sign
            return q

        def shape(p):
            q = own(p)
            return cut(outer(q), -sinus(q) - 3, 5)

        def bright(p, d):
            return np.where((outer(own(p)) > -cortex) | (pyramids(p) > 1), hu["cortex"], hu["medulla"])

        reach = radii.max() + 6
        self.organ(name, (shape, (centre - reach, centre + reach)), bright)

    def pelvis(self) -> None:
        """Bladder, what lies under and behind it, and the vessels to the legs."""
        rng, hu = self.rng, self.hu
        rectum = tube([(60, 60, 0), (0, 48, 0), (-50, 45, 0)], (15, 16, 12))
        self.add(rectum, rng.choice((-30, 30, -900)))
        beneath = ellipsoid(self.near((5, 8, 0), 4), (26, 22, 28) * rng.uniform(0.7, 1.2, 3))
        self.add(beneath, hu["muscle"] + rng.uniform(-5, 25))  # prostate or womb
        radii = np.array((34, 32, 42)) * rng.uniform(0.55, 1.25) * rng.uniform(0.85, 1.15, 3)
        centre = self.near((8 + radii[0], -24, 0), 5)
        level = centre[1] - self.up * radii[1] * rng.uniform(-0.5, 1.5)  # heavy contrast agent sinks
        smooth, (low, high) = ellipsoid(centre, radii)
        lumps = waves(rng, 70)

        def bright(p, d):
            return np.where(d > -3, 35, np.where((p[1] - level) * self.up < 0, hu["urine"], 5))

        self.organ("bladder", (lambda p: smooth(p) + 3 * lumps(p), (low - 6, high + 6)), bright)
        for _, sign in SIDES:
            iliac = [(115, 20, sign * 4), (40, -10, sign * 60), (-80, -55, sign * 75)]
            self.add(tube(iliac, (8, 7, 7)), hu["vein"])
