"""A torso made of formulas: shapes with signed distances, drawn anew for each patient.

Coordinates are millimetres in the patient's own body, in the order of a volume's axes: `z` from feet to head
(0 at the hip joints), `y` from front to back (0 in the middle), `x` from the patient's right to left (0 in the
middle). Points are float32 arrays `[3, N]`. Every shape is a function `points -> distance [N]`, negative inside, so that edges can
be drawn softly at any resolution. A patient is a list of `Part`s painted one over the other, like a picture in
oils: fat over skin, bowel over fat, bone at the end.

Brightness is in Hounsfield units (HU): air -1000, fat -100, water 0, muscle 55, bone above 300.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Shape = Callable[[np.ndarray], np.ndarray]
EVERYWHERE = (np.full(3, -1e4), np.full(3, 1e4))
SIDES = (("right", -1), ("left", 1))


class Part(NamedTuple):
    """One thing to paint: where (`shape`), how bright (`hu`, a number or `(points, distance) -> [N]`).

    `label` is 1 + the class index where the part belongs to a labelled organ, else 0. `bounds` (low, high) is a box
    that holds the shape: parts out of sight are not computed.
    """

    shape: Shape
    hu: float | Callable
    label: int = 0
    bounds: tuple = EVERYWHERE


# --- shapes -----------------------------------------------------------------------------------------------------


def ellipsoid(centre, radii, turn=None) -> Part:
    """An ellipsoid as (shape, bounds); `turn` is a rotation matrix into the ellipsoid's own axes."""
    centre, radii = np.float32(centre), np.float32(radii)

    def shape(p):
        q = p - centre[:, None]
        if turn is not None:
            q = turn @ q
        q /= radii[:, None]
        k0 = np.sqrt(np.einsum("ij,ij->j", q, q))
        q /= radii[:, None]
        k1 = np.sqrt(np.einsum("ij,ij->j", q, q))
        return k0 * (k0 - 1) / (k1 + 1e-6)  # first-order distance: value over gradient

    reach = radii if turn is None else np.full(3, radii.max())
    return shape, (centre - reach, centre + reach)


def tube(points, radii) -> tuple:
    """A bent tube through `points` [K, 3] with `radii` [K], as (shape, bounds): round cones end to end."""
    points, radii = np.float32(points), np.float32(radii)

    def shape(p):
        best = None
        for a, b, ra, rb in zip(points, points[1:], radii, radii[1:]):
            ab = b - a
            q = p - a[:, None]
            t = np.clip((ab @ q) / (ab @ ab), 0, 1)
            q -= ab[:, None] * t
            d = np.sqrt(np.einsum("ij,ij->j", q, q)) - (ra + (rb - ra) * t)
            best = d if best is None else np.minimum(best, d)
        return best

    r = radii.max()
    return shape, (points.min(0) - r, points.max(0) + r)


def cut(a, b, soft=8.0):
    """Intersection of two distances with a rounded edge of about `soft` mm."""
    h = np.maximum(soft - np.abs(a - b), 0)
    return np.maximum(a, b) + h * h / (4 * soft)


def waves(rng, wavelength, count=4) -> Shape:
    """A smooth random field of unit amplitude: plane waves of random direction around one wavelength (mm)."""
    k = rng.normal(size=(count, 3))
    k *= 2 * np.pi / (np.linalg.norm(k, axis=1, keepdims=True) * wavelength * rng.uniform(0.7, 1.4, (count, 1)))
    k, phase = np.float32(k), np.float32(rng.uniform(0, 2 * np.pi, (count, 1)))
    return lambda p: np.sin(k @ p + phase).sum(0) * np.float32((2 / count) ** 0.5)


def strings(rng, spacing, radius) -> Shape:
    """Thin winding threads everywhere, about `spacing` mm apart: two random fields are zero at once only on curves."""
    f, g = waves(rng, 2 * spacing), waves(rng, 2 * spacing)
    slope = np.float32(spacing / np.pi)  # a field's value times this is about the distance to its zero
    return lambda p: np.hypot(f(p), g(p)) * slope - radius


def mix(inside, outside, distance, soft=2.5):
    """Two brightnesses, blended over `soft` mm about distance 0."""
    return outside + (inside - outside) * np.clip(0.5 - distance / np.float32(soft), 0, 1)


def rotation(angles) -> np.ndarray:
    """Rotation matrix [3, 3] float32 by `angles` (radians) around the axes z, y and x in turn."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        matrix = step @ matrix
    return np.float32(matrix)


# --- the torso --------------------------------------------------------------------------------------------------


def outline(p, inset=0.0, forward=0.0):
    """Distance to the muscular core of the torso, an ellipse whose axes change with height."""
    z = p[0]
    half_width = np.interp(z, (-200, -60, 20, 170, 340, 440, 540), (155, 155, 156, 134, 146, 140, 85)) - inset
    half_depth = np.interp(z, (-200, -60, 20, 170, 340, 440, 540), (92, 94, 98, 92, 104, 96, 55)) - inset
    y, x = (p[1] + forward) / half_depth, p[2] / half_width
    k0 = np.sqrt(x * x + y * y)
    k1 = np.sqrt((x / half_width) ** 2 + (y / half_depth) ** 2)
    return (k0 * (k0 - 1) / (k1 + 1e-6)).astype(np.float32)


class Torso:
    """One patient's body: draws every number it needs from `rng`, then lists its parts in painting order."""

    def __init__(self, rng: np.random.Generator, classes: tuple[str, ...]):
        self.rng = rng
        self.label = {name: i + 1 for i, name in enumerate(classes)}
        self.parts: list[Part] = []
        self.organs: dict[str, tuple] = {}
        self.fat = rng.uniform(6, 38)
        self.breath = rng.normal(0, 10)
        self.hu = contrast(rng)
        self.body()
        self.chest()
        self.belly()
        self.spleen()
        self.pancreas()
        self.kidneys()
        self.pelvis()
        self.bones()

    def add(self, solid, hu, label=0):
        shape, bounds = solid
        self.parts.append(Part(shape, hu, label, bounds))

    def organ(self, name, solid, hu):
        self.organs[name] = solid
        self.add(solid, hu, self.label[name])

    def vary(self, centre, spread):
        return np.asarray(centre, float) + self.rng.normal(0, 1, 3) * spread

    def body(self):
        rng, fat = self.rng, self.fat
        belly_fat = fat * rng.uniform(0.2, 0.9)

        def skin(p):
            front = np.clip(-p[1] / 90, 0, 1) * np.exp(-(((p[0] - 150) / 120) ** 2)) * belly_fat
            return outline(p) - fat - front.astype(np.float32)

        hu = self.hu
        mottle = strings(rng, 26, 1.0)
        self.add((skin, EVERYWHERE), lambda p, d: np.where(d > -2.5, 20, mix(-20, hu["fat"], mottle(p))).astype(np.float32))
        seams, gap = waves(rng, 60, 7), rng.uniform(0.5, 4)  # fat between the muscles of hip and thigh

        def muscle(p, d):
            between = np.abs(seams(p)) * 12 - gap + np.clip((p[0] - 60) / 8, 0, 99) + np.clip(4 + d, 0, 4) * 3
            return mix(hu["fat"], hu["muscle"], between).astype(np.float32)

        self.add((outline, EVERYWHERE), muscle)
        wall = rng.uniform(12, 20)
        self.cavity = lambda p, inset=0.0: outline(p, wall + inset, 6.0)
        vessels = strings(rng, 17, rng.uniform(1.5, 3.0))
        self.add(
            (lambda p: cut(self.cavity(p), -25 - p[0]), EVERYWHERE),
            lambda p, d: mix(hu["vein"], hu["fat"] + 4, vessels(p)).astype(np.float32),
        )

    def chest(self):
        rng, hu = self.rng, self.hu
        top = {side: 318 + self.breath + rng.normal(0, 8) - (12 if side == "left" else 0) for side, _ in SIDES}
        steep = {side: rng.uniform(48, 66) for side, _ in SIDES}

        def diaphragm(p, side, sign):
            return top[side] - ((p[2] - sign * 62) / steep[side]) ** 2 * 30 - ((p[1] + 8) / 70) ** 2 * 36

        self.dome = lambda p: np.maximum(diaphragm(p, "right", -1), diaphragm(p, "left", 1))
        for side, sign in SIDES:
            gap = rng.uniform(14, 24)

            def lung(p, side=side, sign=sign, gap=gap):
                d = cut(self.cavity(p, 0.0), gap - sign * p[2], 14)
                apex = (p[0] - 505) + ((p[2] - sign * 60) / 45) ** 2 * 25
                return cut(cut(d, (diaphragm(p, side, sign) - p[0]) * 0.75, 6), apex, 20)

            air, vessels, fine = rng.uniform(-880, -780), strings(rng, 26, 2.6), strings(rng, 13, 1.1)
            low, high = np.array([180.0, -120, -10]), np.array([530.0, 120, 160])
            if side == "right":
                low[2], high[2] = -160, 10
            self.organ(
                f"lung-{side}",
                (lung, (low, high)),
                lambda p, d, air=air, v=vessels, f=fine: mix(
                    hu["vein"], air, np.minimum(v(p), f(p))
                ).astype(np.float32),
            )
        for _, sign in SIDES:  # the great vessels into each lung
            root = self.vary((385, 8, sign * 18), 4)
            self.add(tube([root, root + [8, 6, sign * 28], root + [-30, 18, sign * 50]], (11, 8, 4)), hu["blood"])
        turn = rotation(rng.normal((0.5, 0.25, 0.3), 0.15))
        size = rng.uniform(0.85, 1.2)
        centre = self.vary((356 + 0.6 * self.breath, -26, 20), (8, 5, 8))
        radii = np.array((46, 42, 58)) * size * rng.uniform(0.93, 1.07, 3)
        self.add(ellipsoid(centre, radii + rng.uniform(3, 9), turn), hu["fat"])
        self.organ("heart", ellipsoid(centre, radii, turn), hu["myocardium"])
        inner = turn.T
        for offset, r in (((4, 5, 22), (24, 20, 28)), ((4, -20, -6), (22, 12, 30)), ((6, 12, -28), (24, 20, 16))):
            self.add(ellipsoid(centre + inner @ (np.array(offset) * size), np.array(r) * size, turn), hu["blood"], self.label["heart"])
        self.add(tube([(560, 0, 0), (400, 18, 3)], (9, 8)), -950)  # windpipe
        self.add(tube([(450, 28, 6), (320, 24, 12)], (8, 8)), 40)  # gullet

    def belly(self):
        rng, hu = self.rng, self.hu
        edge = 178 + self.breath + rng.normal(0, 16)
        slope, back, left = rng.uniform(0.45, 0.75), rng.uniform(0.1, 0.5), rng.uniform(20, 75)

        def liver(p):
            d = cut(self.cavity(p, 2.0), p[0] - self.dome(p) + 4, 10)
            under = edge + slope * (p[2] + 115) + back * (p[1] + 10) - p[0]
            return cut(cut(d, under * 0.8, 18), p[2] - left, 16)

        # stomach and bowel first: what is solid pushes them aside
        for _ in range(rng.integers(26, 40)):
            self.loop(self.rng.uniform((45, -70, -100), (225, 25, 100)))
        centre = self.vary((262 + self.breath, -28, 52), 9)
        radii = np.array((42, 32, 40)) * rng.uniform(0.7, 1.2, 3)
        fluid, gas = rng.choice((15, 35, 60, 250), p=(0.45, 0.25, 0.2, 0.1)), centre[1] + radii[1] * rng.uniform(-1.2, 0.4)
        solid = ellipsoid(centre, radii, rotation(rng.normal(0, 0.3, 3)))
        self.add(solid, lambda p, d: np.where(d > -4, 60, np.where(p[1] < gas, -900, fluid)).astype(np.float32))
        vessels = strings(rng, 34, 2.6)
        bounds = (np.array([120.0, -110, -160]), np.array([350.0, 110, left + 5]))
        self.organ(
            "liver", (liver, bounds), lambda p, d: mix(hu["vein"], hu["liver"], np.maximum(vessels(p), d + 8)).astype(np.float32)
        )
        for _ in range(rng.choice((0, 1, 3, 6), p=(0.5, 0.2, 0.2, 0.1))):  # tumours, cut off at the liver's surface
            lump, box = ellipsoid(self.vary((265, 0, -75), (30, 30, 30)), rng.uniform(5, 20, 3))
            self.add((lambda p, s=lump: np.maximum(s(p), liver(p) + 1), box), hu["liver"] - rng.uniform(20, 60), self.label["liver"])
        self.add(ellipsoid(self.vary((215 + self.breath, -30, -52), 8), (20, 12, 12)), rng.uniform(5, 20))  # gall bladder

    def spleen(self):
        rng, hu = self.rng, self.hu
        turn = rotation(rng.normal((0.5, 0.1, 0.25), 0.25))
        centre = self.vary((262 + self.breath, 34, 84), (9, 6, 5))
        radii = np.array((48, 40, 25)) * rng.uniform(0.75, 1.25) * rng.uniform(0.85, 1.15, 3)
        shape, box = ellipsoid(centre, radii, turn)
        hollow, _ = ellipsoid(centre + turn.T @ (radii * (0, -0.25, -1.15)), radii * (0.8, 0.8, 0.7), turn)
        notch = waves(rng, 45)

        def spleen(p):
            d = np.maximum(cut(shape(p), -hollow(p), 6) + 1.5 * notch(p), self.cavity(p, 2.0))
            return cut(d, p[0] - self.dome(p) + 4, 4)

        patchy = waves(rng, 16)
        uneven = hu["spleen_patch"]
        self.organ("spleen", (spleen, box), lambda p, d: hu["spleen"] + uneven * patchy(p))

    def pancreas(self):
        rng, hu = self.rng, self.hu
        head = self.vary((200 + self.breath * 0.6, 2, -32), 7)
        tail = self.vary((248 + self.breath, 30, 74), (14, 8, 10))
        neck = head + self.vary((22, -12, 26), 5)
        body = (neck + tail) / 2 + self.vary((6, -12, 0), 5)
        shape, box = tube([head + (-18, 4, 4), head, neck, body, tail], np.array((10, 15, 9, 10, 9)) * rng.uniform(0.7, 1.2))
        lobes = waves(rng, 14)
        fatty = rng.uniform(0.0, 0.5)
        self.organ(
            "pancreas",
            (lambda p: shape(p) + 2.2 * lobes(p), box),
            lambda p, d: np.where(lobes(p) > 1.6 - fatty, -40, hu["pancreas"]).astype(np.float32),
        )

    def loop(self, start):
        """One loop of bowel: a short bent tube with a wall, filled with fluid, stool, contrast or gas."""
        rng = self.rng
        points = start + np.cumsum(rng.normal(0, 22, (4, 3)), axis=0)
        shape, box = tube(points, np.full(4, rng.uniform(8, 19)) * rng.uniform(0.8, 1.2, 4))
        filling = rng.choice((20, 50, -100, 280, -900), p=(0.35, 0.25, 0.1, 0.1, 0.2))
        surface = points[:, 1].mean() + rng.uniform(-10, 15)  # gas rises to the front of a patient on the back
        wall = self.hu["bowel"]
        lumen = lambda p: np.where(p[1] > surface, 25, filling) if filling == -900 else filling  # noqa: E731
        self.add(
            (lambda p: np.maximum(shape(p), self.cavity(p, 1.0)), box),
            lambda p, d: np.where(d > -3, wall, lumen(p)).astype(np.float32),
        )

    def kidneys(self):
        rng, hu = self.rng, self.hu
        self.add(tube([(455, 0, -14), (462, 14, 6), (430, 30, 14), (250, 22, 8), (115, 18, 2)], (13, 13, 11, 10, 8)), hu["aorta"])
        self.add(tube([(330, 10, -22), (250, 20, -20), (115, 22, -12)], (11, 11, 10)), hu["vein"])
        size = rng.uniform(0.82, 1.2)
        for side, sign in SIDES:
            centre = self.vary((186 + 0.7 * self.breath + 6 * sign, 36, sign * 63), (12, 6, 5))
            radii = np.array((54, 25, 29)) * size * rng.uniform(0.87, 1.13, 3)
            # the upper pole leans to the spine and to the back; the hilum looks to the front and to the middle
            lean = rng.normal((0.35, 0.22, 0.2), (0.2, 0.1, 0.12))
            turn = rotation((sign * lean[0], sign * lean[1], lean[2]))
            self.kidney(side, sign, centre, radii, turn)
            hilum = centre - (0, 4, sign * 16)
            self.add(tube([hilum, hilum * (1, 0.5, 0.35)], (5, 5)), hu["vein"])
            if rng.random() < 0.25:  # a cyst
                lump = centre + rng.normal(0, 1, 3) * radii * 0.6
                self.add(ellipsoid(lump, np.full(3, rng.uniform(6, 16))), rng.uniform(0, 15), self.label[f"kidney-{side}"])
        # stated once for both sides: muscles beside the spine
        for _, sign in SIDES:
            self.add(tube([(235, 46, sign * 24), (150, 42, sign * 42), (20, -12, sign * 72)], (8, 20, 17)), hu["muscle"])

    def kidney(self, side, sign, centre, radii, turn):
        hu, bend = self.hu, np.float32(self.rng.uniform(0.08, 0.2))
        outer, _ = ellipsoid((0, 0, 0), radii)
        sinus, _ = ellipsoid((0, -4, -sign * radii[2] * 0.55), radii * (0.5, 0.42, 0.62))
        pyramids = waves(self.rng, 26, 5)
        cortex, centre = self.rng.uniform(5, 9), np.float32(centre)

        def own(p):
            q = turn @ (p - centre[:, None])
            q[2] += sign * bend * (q[0] * q[0] / radii[0]).astype(np.float32) - sign * 3  # the bean's bend
            return q

        def shape(p):
            q = own(p)
            return cut(outer(q), -sinus(q) - 3, 5)

        def bright(p, d):
            depth = -outer(own(p))
            return np.where((depth < cortex) | (pyramids(p) > 1.0), hu["cortex"], hu["medulla"]).astype(np.float32)

        reach = np.full(3, radii.max() + 6)
        solid = (shape, (centre - reach, centre + reach))
        self.organ(f"kidney-{side}", solid, bright)

    def pelvis(self):
        rng, hu = self.rng, self.hu
        self.add(tube([(60, 60, 0), (0, 48, 0), (-50, 45, 0)], (15, 16, 12)), rng.choice((-30, 30, -900)))  # rectum
        self.add(ellipsoid(self.vary((5, 8, 0), 4), (26, 22, 28) * rng.uniform(0.7, 1.2, 3)), hu["muscle"] + rng.uniform(-5, 25))
        full = rng.uniform(0.55, 1.25)
        radii = np.array((34, 32, 42)) * full * rng.uniform(0.85, 1.15, 3)
        centre = self.vary((8 + radii[0], -24, 0), (5, 5, 5))
        layer = centre[1] + radii[1] * rng.uniform(-0.5, 1.5)
        shape, box = ellipsoid(centre, radii)
        lumpy = waves(rng, 70)
        self.organ(
            "bladder",
            (lambda p: shape(p) + 3 * lumpy(p), (box[0] - 6, box[1] + 6)),
            lambda p, d: np.where(d > -3, 35, np.where(p[1] > layer, hu["urine"], 5)).astype(np.float32),
        )
        for _, sign in SIDES:  # vessels of the legs
            self.add(tube([(115, 20, sign * 4), (40, -10, sign * 60), (-80, -55, sign * 75)], (8, 7, 7)), hu["vein"])

    def bones(self):
        rng, hu = self.rng, self.hu
        spongy = waves(rng, 9, 8)
        marrow = rng.uniform(120, 260)

        def bone(p, d, shell=2.5, inside=marrow):
            return np.where(d > -shell, 700, inside + 35 * spongy(p)).astype(np.float32)

        # spine: bodies repeat every 33 mm, with discs between them
        phase = rng.uniform(0, 33)
        curve = lambda z: 52 - 10 * np.exp(-(((z - 140) / 90) ** 2)) + 16 * np.clip((z - 300) / 200, 0, 1)  # noqa: E731

        def column(p):
            z = np.abs((p[0] + phase) % 33 - 16.5)
            return np.float32(np.maximum(np.hypot(p[1] - curve(p[0]), p[2] * 0.82) - 18, np.maximum(z - 13, 60 - p[0])))

        def disc(p):
            return np.float32(np.maximum(np.hypot(p[1] - curve(p[0]), p[2] * 0.82) - 18, 60 - p[0]))

        def arch(p):
            z = np.abs((p[0] + phase) % 33 - 16.5)
            y = p[1] - curve(p[0])
            ring = np.abs(np.hypot(y - 25, p[2]) - 12) - 3
            spine = np.maximum(np.abs(p[2]) - 3.5, np.abs(y - 46) - 13)
            wings = np.maximum(np.abs(y - 22) - 4, np.abs(np.abs(p[2]) - 24) - 14)
            return np.float32(np.maximum(np.minimum(np.minimum(ring, spine), wings), np.maximum(z - 9, 60 - p[0])))

        box = (np.array([55.0, 20, -45]), np.array([600.0, 130, 45]))
        self.add((disc, box), 80)
        self.add((column, box), bone)
        self.add((arch, box), lambda p, d: np.full(d.shape, 450, np.float32))
        # ribs: all of them at once, slanting down to the front
        pitch, tilt = rng.uniform(24, 29), rng.uniform(0.45, 0.75)
        shift = rng.uniform(0, pitch)

        def ribs(p):
            z = np.abs((p[0] + tilt * p[1] + shift) % pitch - pitch / 2) * 0.85
            d = np.hypot(outline(p, 7), np.maximum(z - 3, 0)) - 3.5
            low = 215 + 60 * np.clip(-p[1] / 90, 0, 1) - p[0]
            return np.float32(np.maximum(np.maximum(d, low), 18 - np.abs(p[2])))

        self.add((ribs, (np.array([210.0, -120, -160]), np.array([540.0, 120, 160]))), lambda p, d: bone(p, d, 1.5))
        for side, sign in SIDES:
            self.hip(side, sign, bone)
        sacrum, box = ellipsoid((70, 66, 0), (55, 16, 48), rotation((0, 0, -0.45)))
        self.add((sacrum, box), bone)

    def hip(self, side, sign, bone):
        rng = self.rng
        head = self.vary((0, 4, sign * 92), (4, 4, 4))
        # iliac wing: a curved plate, the back and side of a bowl
        bowl, _ = ellipsoid((118, 5, sign * 25), (125, 78, 105))

        def wing(p):
            plate = np.abs(bowl(p)) - 5
            return np.maximum(plate, np.maximum(np.maximum(12 - p[0], p[0] - 150 + 0.35 * np.abs(p[1] - 10)), 55 - sign * p[2]))

        low, high = np.array([5.0, -90, 50]), np.array([155.0, 95, 140])
        if sign < 0:
            low[2], high[2] = -140, -50
        self.add((wing, (low, high)), lambda p, d: bone(p, d, 2.0))
        socket, box = ellipsoid(head, (33, 33, 33))
        self.add((lambda p: np.maximum(np.maximum(np.abs(socket(p) + 3) - 4, sign * (p[2] - head[2]) - 14), -20 - p[0]), box), 600)
        seat = tube([head + (-8, 18, -sign * 14), (-62, 24, sign * 52), (-45, -38, sign * 12)], (14, 12, 8))
        front = tube([head + (8, -22, -sign * 18), (-12, -52, sign * 8)], (10, 9))
        self.add(seat, bone)
        self.add(front, bone)
        knee = head + self.vary((-190, -4, sign * 12), (0, 8, 8))
        bend = head + self.vary((-36, 6, sign * 40), 4)
        ball, ball_box = ellipsoid(head, np.full(3, rng.uniform(21, 26)))
        stem, stem_box = tube([head, bend, bend + (-30, 0, -sign * 4), knee], (14, 17, 16, 13))
        box = (np.minimum(ball_box[0], stem_box[0]), np.maximum(ball_box[1], stem_box[1]))
        hollow, marrow_head = rng.uniform(-60, 60), rng.uniform(120, 320)

        def bright(p, d):
            shaft = np.clip((p[0] + 25) / -30, 0, 1)
            return bone(p, d, 1.5 + 4 * shaft, marrow_head * (1 - shaft) + hollow * shaft)

        self.organ(f"femur-{side}", (lambda p: np.minimum(ball(p), stem(p)), box), bright)


def contrast(rng: np.random.Generator) -> dict[str, float]:
    """Brightness (HU) of each tissue in one patient: no contrast, arterial, portal venous or late phase."""
    tissues = ("aorta", "blood", "vein", "myocardium", "cortex", "medulla", "liver", "spleen", "pancreas", "bowel", "urine")
    phases = {
        "none": (42, 42, 40, 45, 34, 30, 58, 48, 40, 35, 8),
        "arterial": (290, 260, 110, 110, 190, 70, 72, 125, 105, 80, 8),
        "venous": (155, 150, 160, 105, 190, 150, 110, 122, 92, 75, 10),
        "late": (115, 110, 112, 85, 145, 165, 92, 98, 75, 60, 260),
    }
    first, second = rng.choice(list(phases), size=2, p=(0.15, 0.17, 0.5, 0.18))
    mix = rng.beta(0.5, 0.5)  # mostly one of the two, sometimes caught between them
    values = (1 - mix) * np.array(phases[first]) + mix * np.array(phases[second])
    values = values * rng.uniform(0.85, 1.15, len(values)) + rng.normal(0, 6, len(values))
    hu = dict(zip(tissues, np.float32(values)))
    hu["muscle"], hu["fat"] = np.float32(rng.normal((58, -98), (8, 8)))
    hu["spleen_patch"] = np.float32(30 if "arterial" in (first, second) else 4)
    return hu
