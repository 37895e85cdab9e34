"""Set up camera and canvas of the procedural street scenes, and draw sky, ground, houses and leaves per pixel."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

TRAIN_IDS: tuple[int, ...] = (0, 1, 2, 5, 7, 8, 9, 10, 11, 13)  # of CLASSES, in the same order
ROAD, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION, TERRAIN, SKY, PERSON, CAR = TRAIN_IDS
IGNORE = 255
GREYS = ((75, 75, 78), (125, 125, 125), (185, 185, 182))
PAINTS = (*GREYS, (190, 60, 50), (60, 90, 160), (225, 190, 70), (80, 120, 80), (150, 100, 70), (70, 130, 140))
WALLS = (*GREYS, (150, 100, 70), (205, 180, 150))
LEAVES = ((75, 125, 60), (85, 120, 55), (70, 110, 70), (115, 125, 60), (160, 145, 80), (150, 95, 55))
PLATES = (((195, 40, 45), (225, 225, 220)), ((40, 80, 170), (225, 225, 220)), ((60, 60, 60), (225, 190, 55)))
_CIRCLE = np.stack([np.cos(np.arange(16) * np.pi / 8 + 0.2), np.sin(np.arange(16) * np.pi / 8 + 0.2)], 1)


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """Make tileable fractal noise, float32 (512, 512), mean 0 and standard deviation 1."""
    rng, total = np.random.default_rng(7), np.zeros((512, 512), np.float32)
    for sigma in (0.8, 2, 5, 12):
        layer: np.ndarray = np.tile(rng.standard_normal((512, 512), dtype=np.float32), (2, 2))
        layer = cv2.GaussianBlur(layer, (0, 0), sigma)[256:768, 256:768]
        total += layer / layer.std()
    return total / total.std()


def _sample(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Sample the noise at texel coordinates (u, v), which broadcast; it repeats beyond the texture."""
    return _noise().ravel()[(v.astype(np.int32) & 511) * 512 + (u.astype(np.int32) & 511)]


def _phase(x: np.ndarray, period: float) -> np.ndarray:
    """Return a coordinate's position in its period, 0 to 1; np.mod is several times slower."""
    x = x * np.float32(1 / period)
    return x - np.floor(x)


def _patch(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """Cut out a random piece of noise, float32 (height, width); scale is pixels per texel."""
    rows, cols = (min(512, max(2, round(n / scale))) for n in (height, width))
    top, left = rng.integers(0, 513 - rows), rng.integers(0, 513 - cols)
    return cv2.resize(_noise()[top : top + rows, left : left + cols], (width, height))


def vary(rng: np.random.Generator, bases: tuple[tuple[int, ...], ...], tint: float = 15) -> np.ndarray:
    """Vary one of the base colours randomly, RGB (3,)."""
    base = np.array(bases[rng.integers(len(bases))]) * rng.uniform(0.7, 1.3)
    return np.minimum(np.maximum(base + rng.uniform(-tint, tint, 3), 5), 250)


def oval(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """Make an elliptical polygon (16, 2) around (x, y)."""
    return _CIRCLE * (rx, ry) + (x, y)


def limb(start: tuple[float, float], end: tuple[float, float], width: float) -> np.ndarray:
    """Make a bar (4, 2) of some width from start to end."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    across = np.array([-dy, dx]) * (width / 2 / max(np.hypot(dx, dy), 1e-6))
    return np.array([start - across, start + across, end + across, end - across])


class Backdrop:
    """Hold camera and canvas, and draw everything that is evaluated per pixel.

    World coordinates are in metres: x right, y up from the ground, z ahead; pixels are (column, row).
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.image, self.labels = np.zeros((height, width, 3), np.uint8), np.full((height, width), IGNORE, np.uint8)
        self.depth = np.full((height, width), 1e4, np.float32)
        self.focal, self.eye = height * rng.uniform(1.0, 1.2), rng.uniform(1.6, 2.1)
        self.horizon, self.centre = height * rng.uniform(0.36, 0.47), width * rng.uniform(0.42, 0.58)
        self.sun = float(rng.choice([-1, 1])) * rng.uniform(0.4, 1)  # sideways direction of the light
        # distances of the left and the right kerb from the camera
        self.kerb = rng.uniform(2.8, 3.6) + rng.uniform(-0.5, 0.5) * np.array([1, -1])
        self.walk, self.grass = rng.uniform(2.8, 4.2, 2), rng.uniform(2.8, 4.5, 2)  # widths of the strips
        self.grass_first = rng.random(2) < 0.35  # whether the grass lies between road and sidewalk

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project world points (N, 3) to pixels (N, 2); depths below 0.6 m count as 0.6 m."""
        scale = self.focal / np.maximum(points[:, 2], 0.6)
        columns, rows = self.centre + scale * points[:, 0], self.horizon + scale * (self.eye - points[:, 1])
        return np.array([columns, rows]).T

    def fill(self, pixels: np.ndarray, colour: np.ndarray, label: int, depth: float) -> None:
        """Paint one polygon (N, 2) in pixels: smooth edges in the picture, hard ones in the labels."""
        fixed = (np.minimum(np.maximum(pixels, -30000), 30000) * 16 - 8).astype(np.int32)[None]
        cv2.fillPoly(self.image, fixed, tuple(min(max(float(c), 0), 255) for c in colour), cv2.LINE_AA, 4)
        cv2.fillPoly(self.labels, fixed, label, cv2.LINE_8, 4)
        cv2.fillPoly(self.depth, fixed, float(depth), cv2.LINE_8, 4)

    def paint(self, top: int, left: int, mask: np.ndarray, colours: np.ndarray, label: int, depth: np.ndarray) -> None:
        """Paint pixels: mask (h, w) bool, colours uint8 (h, w, 3), depth broadcastable to the mask."""
        area = np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]
        cv2.copyTo(colours, mask.view(np.uint8), self.image[area])
        np.copyto(self.labels[area], label, where=mask)
        np.copyto(self.depth[area], depth, where=mask)

    def sky(self) -> None:
        """Paint a gradient with clouds, down to the horizon."""
        rng, rows = self.rng, int(self.horizon) + 2
        zenith = vary(rng, ((95, 140, 200), (110, 150, 205), (175, 178, 185), (120, 110, 130), (215, 215, 218)))
        haze = np.clip(zenith * rng.uniform(0.9, 1.3) + rng.uniform(-5, 45) * np.array([1.0, 0.7, 0.4]), 0, 245)
        ramp = np.linspace(0, 1, rows)[:, None, None] ** 1.5
        cloud = cv2.blur(_patch(rng, rows, self.width, self.height / 90), (self.width // 24, self.height // 30))
        cloud = np.clip(cloud - rng.uniform(-0.3, 0.9), 0, 1)[..., None] * rng.uniform(0.3, 0.9)
        colours = zenith * (1 - ramp) + haze * ramp
        self.image[:rows] = colours + cloud * (vary(rng, GREYS[1:]) - colours)
        self.labels[:rows] = SKY

    def ground(self) -> None:
        """Paint the road with its markings, sidewalks and strips of grass, down from the horizon."""
        rng, top = self.rng, int(self.horizon) + 1
        rows = np.arange(top, self.height, dtype=np.float32)[:, None] + 0.5
        z = np.minimum(self.focal * self.eye / np.maximum(rows - self.horizon, 0.3), 300)
        x = (np.arange(self.width, dtype=np.float32) + 0.5 - self.centre) * (z / np.float32(self.focal))
        fade, right = np.minimum(1, 9 / z), x > 0
        both = lambda pair: np.where(right, np.float32(pair[1]), np.float32(pair[0]))  # noqa: E731
        out, first = np.abs(x) - both(self.kerb), both(np.where(self.grass_first, self.grass, self.walk))
        inner, outer = both(1 + self.grass_first), both(2 - self.grass_first)
        strip = np.where(out < 0, 0, np.where(out < first, inner, outer)).astype(np.uint8)
        strip[out > both(self.walk + self.grass)] = 2
        tile = rng.uniform(0.6, 1.0)
        joint = ((_phase(x, tile) < 0.1) | (_phase(z, tile) < 0.12)) & (strip == 1)
        grain = np.array([0.07, 0.04, 0.32], np.float32)[strip]  # of road, sidewalk, grass
        value = 1 + fade * _sample(x * 25, z * 8) * grain - 0.3 * fade * joint
        asphalt = vary(rng, GREYS[:2], 9)
        paving = asphalt * rng.uniform(1.3, 1.7) + rng.uniform(-12, 12, 3)  # lighter than its road, not than others
        colours: np.ndarray = np.array([asphalt, paving, vary(rng, LEAVES[:5])], np.float32)[strip]
        colours = cv2.multiply(colours, cv2.merge([value] * 3), dtype=cv2.CV_8U)  # rounds and saturates
        dash = _phase(z, 6) < 0.5
        line = ((np.abs(x - float(self.kerb[1] - self.kerb[0]) / 2) < 0.11) & dash) | (np.abs(out + 0.45) < 0.08)
        start = rng.uniform(7, 25)  # of a zebra crossing
        line |= (out < 0) & (z > start) & (z < start + 3) & (_phase(x, 1.1) < 0.5)
        colours[line] = rng.integers(185, 240)
        colours[np.abs(out - 0.1) < 0.14] = vary(rng, GREYS[1:])  # kerb stones
        self.paint(top, 0, np.ones(strip.shape, bool), colours, ROAD, z)
        self.labels[top:] = np.array([ROAD, SIDEWALK, TERRAIN], np.uint8)[strip]

    def shadows(self, things: list[tuple[float, float, str]]) -> None:
        """Darken the ground in the shadows of the things (z, x, kind) and of the houses."""
        rng, shapes, mask = self.rng, [], np.zeros(self.labels.shape, np.uint8)
        for z, x, kind in things:
            size, reach = {'car': (1.9, 0.5), 'tree': (1.8, 3.5)}.get(kind, (0.35, 1.2))
            shapes.append(oval(x - self.sun * reach * 0.7, z + 0.2, size * 0.6 + reach * 0.7, size))
        if rng.random() < 0.6:  # of the houses on the side of the sun
            edge = np.sign(self.sun) * self.kerb[int(self.sun > 0)] * rng.uniform(0.3, 1.2)
            shapes.append(np.array([[edge, 0.7], [edge, 120], [edge * 30, 120], [edge * 30, 0.7]]))
        for shape in shapes:
            points = self.project(np.insert(shape, 1, 0, 1))
            cv2.fillPoly(mask, np.clip(points, -9999, 9999).astype(np.int32)[None], 255)
        ground = np.s_[int(self.horizon) + 2 :]
        soft = cv2.blur(mask[ground], (self.height // 50 | 1,) * 2)
        clear = 255 - soft * rng.choice(np.array([0.1, 0.35, 0.5], np.float32))
        self.image[ground] = cv2.multiply(self.image[ground], cv2.merge([clear] * 3), None, 1 / 255, cv2.CV_8U)

    def house(self, side: int, near: float, far: float, wall: float) -> None:
        """Draw a house between depths near and far: its wall facing the camera, then its street wall at |x| = wall."""
        rng, sign, top = self.rng, 2 * side - 1, self.rng.uniform(5, 14)
        grid, floor, brick = rng.uniform(1.8, 3), rng.uniform(2.7, 3.6), np.float32(0.15 * (rng.random() < 0.6))
        colours = np.array([vary(rng, WALLS, 22), vary(rng, GREYS), vary(rng, GREYS[:2])], np.float32)
        edges = [self.centre + sign * self.focal * wall / z for z in (near, far)]
        faces = (True, edges[0] + sign * self.focal * 6 / near, 0.75), (False, edges[1], 1 - 0.25 * sign * self.sun)
        for front, end, light in faces:
            left, right = sorted(int(np.clip(round(edge), 0, self.width)) for edge in (edges[0], end))
            upper = max(0, int(self.horizon - self.focal * (top - self.eye) / near))
            lower = min(self.height, int(self.horizon + self.focal * self.eye / near) + 1)
            if right <= left:
                continue
            columns = (np.arange(left, right, dtype=np.float32) + (0.5 - self.centre)) * sign
            z = self.focal * wall / np.maximum(columns, 1e-3)
            z = np.full_like(columns, near) if front else np.clip(z, near, far)
            rows = np.arange(upper, lower, dtype=np.float32)[:, None] + (0.5 - self.horizon)
            v = self.eye - rows * (z / np.float32(self.focal))
            u = columns * np.float32(near / self.focal) - wall if front else z
            across, along = np.abs(_phase(u, grid) - 0.5), np.abs(_phase(v, floor) - 0.55)
            surface = ((across < 0.3) & (along < 0.3)).view(np.uint8) + ((across < 0.23) & (along < 0.24))
            surface *= v < top - 0.8  # 0 wall, 1 frame, 2 glass
            surface[v > top - 0.45] = 1
            value = light * (1 + 0.06 * _sample(u * 30, v * 30) - (_phase(v, 0.5) < 0.3) * brick)
            pixels = cv2.multiply(colours[surface], cv2.merge([value] * 3), dtype=cv2.CV_8U)
            self.paint(upper, left, (v >= 0) & (v <= top), pixels, BUILDING, z[None])

    def crown(self, x: float, y: float, z: float, rx: float, ry: float) -> None:
        """Draw a blobby mass of leaves around (x, y, z) with radii in metres."""
        rng, scale = self.rng, self.focal / z
        (cx, cy), rx, ry = self.project(np.array([[x, y, z]]))[0], rx * scale, ry * scale
        left, right = (int(np.clip(cx + s * rx * 1.25, 0, self.width)) for s in (-1, 1))
        top, bottom = (int(np.clip(cy + s * ry * 1.25, 0, self.height)) for s in (-1, 1))
        if right - left < 2 or bottom - top < 2:
            return
        blobs = np.zeros((bottom - top, right - left), np.uint8)
        for index, far in enumerate(rng.uniform(0.5, 0.75, 9)):
            angle, far = 0.8 * index, far * (index > 0)  # one ball fills the middle
            ball = oval(cx - left + np.cos(angle) * rx * far, cy - top + np.sin(angle) * ry * far, rx * 0.5, ry * 0.5)
            cv2.fillPoly(blobs, [ball.astype(np.int32)], 255)
        leaves, soft = _patch(rng, *blobs.shape, self.height / 300), max(3, int(min(rx, ry) * 0.25) | 1)
        mask = cv2.blur(blobs, (soft, soft)) + 28 * leaves > 128
        across = np.linspace(-0.15, 0.15, blobs.shape[1], dtype=np.float32) * np.float32(self.sun)
        value = 0.25 * leaves + np.linspace(1.15, 0.65, blobs.shape[0], dtype=np.float32)[:, None] + across
        tint = (*vary(rng, LEAVES).tolist(), 0)  # OpenCV's stubs know no scalar operands, here and in `grade`
        colours = cv2.multiply(cv2.merge([value] * 3), tint, dtype=cv2.CV_8U)  # type: ignore[call-overload]
        self.paint(top, left, mask, colours, VEGETATION, np.float32(z))

    def grade(self) -> np.ndarray:
        """Add fog, light, colour cast, blur and sensor noise; return the finished image, uint8 (height, width, 3)."""
        rng = self.rng
        haze = (*(self.image[: int(self.horizon)].mean((0, 1)) * 0.5 + 95).tolist(), 0.0)
        clear = np.exp(self.depth * -rng.choice(np.array([0.002, 0.006, 0.014], np.float32)))
        clear[self.depth > 9e3] = 1
        image = cv2.GaussianBlur(self.image, (0, 0), self.height / 256 * rng.uniform(0.4, 0.8))
        image = cv2.subtract(image, haze, dtype=cv2.CV_32F)  # type: ignore[call-overload]
        image = cv2.multiply(image, cv2.merge([clear] * 3))
        noise = rng.standard_normal(clear.shape, dtype=np.float32) * np.float32(rng.uniform(1, 5))
        image = cv2.add(image + cv2.merge([noise] * 3), haze, dtype=cv2.CV_8U)  # type: ignore[call-overload]
        table = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.75, 1.25)
        table = table * rng.uniform(0.75, 1.1) * rng.uniform(0.92, 1.08, 3)
        return cv2.LUT(image, np.clip(table * 255, 0, 255).astype(np.uint8)[None])
