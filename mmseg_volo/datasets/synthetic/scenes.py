"""Draw procedural street scenes in the Cityscapes folder layout, for demonstrations and tests without a download.

A scene is a pin-hole view along a street: ground and facades are evaluated per pixel, objects are polygons painted far
to near. Colours are drawn anew for each scene and shared by the classes on purpose: shape, texture and position
distinguish the classes, colour alone does not.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np

from mmseg_volo.datasets.synthetic.canvas import (
    CAR,
    GREYS,
    IGNORE,
    PAINTS,
    PERSON,
    PLATES,
    POLE,
    SIGN,
    TRAIN_IDS,
    VEGETATION,
    Backdrop,
    limb,
    oval,
    vary,
)
from mmseg_volo.utils.files import encode_image
from mmseg_volo.utils.locks import Lock
from mmseg_volo.utils.progress import ProgressBar

CLASSES: tuple[str, ...] = tuple(
    'road,sidewalk,building,pole,traffic sign,vegetation,terrain,sky,person,car'.split(',')
)
VERSION = 7  # of the generator; part of the manifest, so that an old set is not taken for a new one
CITIES = {'train': ('ashford', 'birchwell', 'copperton'), 'val': ('driftmoor',)}
_MANIFEST = 'scenes.json'
__all__ = ['CITIES', 'CLASSES', 'TRAIN_IDS', 'VERSION', 'generate', 'scene']


class _Street(Backdrop):
    """Draw objects, made of polygons, and place them along the street."""

    def tree(self, x: float, z: float) -> None:
        height, width = self.rng.uniform(4, 6), self.rng.uniform(0.2, 0.3)
        ends = self.project(np.array([[x, 0, z], [x, height, z]]))
        trunk = limb(ends[0], ends[1], 2 * width * self.focal / z)
        self.fill(trunk, vary(self.rng, ((85, 72, 60),)), VEGETATION, z)
        self.crown(x, height, z, *self.rng.uniform(1.9, 2.7, 2))

    def bush(self, x: float, z: float) -> None:
        size = self.rng.uniform(0.6, 1.1)
        self.crown(x, size * 0.7, z, size * self.rng.uniform(1, 1.6), size)

    def person(self, x: float, z: float) -> None:
        rng, tall = self.rng, self.rng.uniform(1.6, 1.95)
        foot, unit = self.project(np.array([[x, 0, z]]))[0], self.focal / z * tall
        coat, legs, hair = vary(rng, PAINTS, 25), vary(rng, PAINTS) * 0.8, vary(rng, PAINTS[:1], 35)
        step, hem = rng.uniform(0.02, 0.1), rng.choice([0.42, 0.3])
        skin = np.array([225, 180, 150]) * rng.uniform(0.4, 1.05)
        body = np.array([[-0.17, 0.78], [-0.11, 0.83], [0.11, 0.83], [0.17, 0.78], [0.15, hem], [-0.15, hem]])
        shapes: list[tuple[np.ndarray, np.ndarray]] = []
        for s in (-1, 1):
            shapes.append((limb((0.06 * s, 0.5), ((0.06 + step) * s, 0.05), 0.14), legs * (0.9 + 0.1 * s)))
            shapes.append((limb(((0.02 + step) * s, 0.025), ((0.1 + step) * s, 0.025), 0.06), np.full(3, 30)))
            shapes.append((limb((0.16 * s, 0.79), ((0.18 + step / 2) * s, 0.45), 0.11), coat * (0.85 + 0.1 * s)))
        shapes += [(body, coat), (body * (0.5, 1) - (0.08 * np.sign(self.sun), 0), coat * 0.8)]
        shapes += [(oval(0, 0.915, 0.095, 0.11), hair), (oval(rng.uniform(-0.02, 0.02), 0.89, 0.08, 0.085), skin)]
        for shape, colour in shapes:
            self.fill(foot + shape * (1.15 * unit, -unit), colour, PERSON, z)

    def post(self, x: float, z: float, height: float, width: float, colour: np.ndarray) -> None:
        """Draw a round pole, lit from the side of the sun."""
        for shift, share, shade in ((0, 1, 0.62), (0.15, 0.7, 0.85), (0.2, 0.35, 1.1)):
            at = x + shift * width * np.sign(self.sun)
            ends = self.project(np.array([[at, 0, z], [at, height, z]]))
            self.fill(limb(ends[0], ends[1], share * width * self.focal / z), colour * shade, POLE, z)

    def lamp(self, x: float, z: float) -> None:
        rng, scale, colour, height = self.rng, self.focal / z, vary(self.rng, GREYS), self.rng.uniform(4.5, 7)
        self.post(x, z, height, rng.uniform(0.36, 0.48), colour)
        self.post(x, z, 0.8, 0.62, colour * 0.8)
        ends = self.project(np.array([[x, height, z], [x - np.sign(x) * rng.uniform(0.9, 1.6), height + 0.25, z]]))
        self.fill(limb(ends[0], ends[1], 0.36 * scale), colour * 0.9, POLE, z)
        self.fill(oval(ends[1, 0], ends[1, 1], 0.55 * scale, 0.26 * scale), np.array([235, 225, 190]), POLE, z)

    def sign(self, x: float, z: float) -> None:
        """Draw one or two plates on a pole: round, triangular, square or octagonal."""
        rng, height = self.rng, self.rng.uniform(2.5, 3.1)
        self.post(x, z, height + 0.3, rng.uniform(0.32, 0.4), vary(rng, GREYS))
        for level in range(rng.integers(1, 3)):
            centre = self.project(np.array([[x, height - level * 1.3, z]]))[0]
            corners, turn, size = ((16, 0, 1), (3, -0.5, 1.25), (4, 0.25, 1.2), (8, 0.125, 1.05))[rng.integers(4)]
            angle = np.pi * (np.arange(corners) * 2 / corners + turn)
            radius = rng.uniform(0.52, 0.7) * self.focal / z
            shape = np.stack([np.cos(angle), np.sin(angle)], 1) * radius * size
            rim, face = np.array(PLATES[rng.integers(3)])[:: rng.choice([1, -1])] * rng.uniform(0.75, 1.1)
            bar = limb((-0.5 * radius, 0), (0.5 * radius, 0), rng.uniform(0.15, 0.4) * radius)
            for pixels, colour in ((shape, rim), (shape * 0.74, face), (bar, rim)):
                self.fill(centre + pixels, colour, SIGN, z)

    def car(self, x: float, z: float) -> None:
        """Draw a box car of three prisms: underside, body and cabin."""
        rng, yaw = self.rng, self.rng.normal(0, 0.06)
        paint, glass, tail = vary(rng, PAINTS, 25), vary(rng, GREYS[:1]), rng.random() < 0.6
        half, end, belt, roof = rng.uniform((0.83, 1.8, 0.8, 1.4), (0.95, 2.4, 1, 1.85))
        turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
        draw = lambda points, tone: self.fill(self.project(points @ turn + (x, 0, z)), tone, CAR, z)  # noqa: E731
        back, front = -rng.uniform(0.76, 1) * end, rng.uniform(0.24, 0.8) * end
        prisms = (  # height, half width, rear and front end, of the lower and of the upper ring
            ((0, 0.9 * half, -0.88 * end, 0.88 * end), (0.4, 0.9 * half, -0.88 * end, 0.88 * end), np.full(3, 22)),
            ((0.26, half, -end, end), (belt, 0.95 * half, -0.98 * end, 0.96 * end), paint),
            ((belt, 0.93 * half, back, front), (roof, 0.72 * half, back + 0.3, front - 0.55), paint * 0.95),
        )
        for kind, (low, high, tone) in enumerate(prisms):
            rings = [np.array([[-a, y, b], [a, y, b], [a, y, f], [-a, y, f]]) for y, a, b, f in (low, high)]
            faces = [np.stack([rings[0][i], rings[0][i - 1], rings[1][i - 1], rings[1][i]]) for i in range(4)]
            faces.sort(key=lambda face: -np.hypot(*((face.mean(0) @ turn)[[0, 2]] + (x, z))))
            for face in faces[2:]:  # the two farther ones are hidden
                centre = face.mean(0)
                lateral = abs(centre[0]) > 0.5 * half and abs(centre[2]) < 0.5 * end
                draw(face, tone * (0.8 if lateral == (self.sun * x > 0) else 1.0))
                if kind == 2:
                    draw(centre + (face - centre) * (0.82, 0.74, 0.86), glass)
                elif kind == 1 and lateral:
                    for index, radius in enumerate((0.36, 0.36, 0.2, 0.2)):  # two tyres, two hubs
                        wheel = oval(0.36, (0.62, -0.62)[index % 2] * end, radius, radius)
                        draw(np.insert(wheel, 0, centre[0] * 1.02, 1), np.full(3, 20 if index < 2 else 130))
                elif kind == 1:
                    lamp, plate = np.array([200, 40, 40] if tail else [240, 235, 200]), np.full(3, 215)
                    for mid, shade in ((-0.77 * half, lamp), (0.77 * half, lamp), (0, plate)):
                        up = belt - 0.2 if mid else 0.5
                        lit = limb((mid - 0.2, up), (mid + 0.2, up), 0.2)
                        draw(np.insert(lit, 2, centre[2] * 1.01, 1), shade)
            draw(rings[1], tone * 1.1)

    def houses(self) -> None:
        """Draw both rows of houses far to near, and the trees that close the street."""
        rng, rows = self.rng, []
        for x in np.arange(-45, 45, 15) + rng.uniform(0, 15):
            self.crown(x, 2.5, 75.0, rng.uniform(6, 12), rng.uniform(2.5, 6))
        for side in (0, 1):
            z = rng.uniform(0.5, 4)
            while z < 50:
                far = z + rng.uniform(7, 14)
                rows.append((z, far, side))
                z = far + rng.uniform(2, 8) * (rng.random() < 0.4)
        for near, far, side in sorted(rows, reverse=True):
            wall = float(self.kerb[side] + self.walk[side] + self.grass[side]) + rng.uniform(0, 1)
            self.house(side, near, far, wall)

    def place(self) -> list[tuple[float, float, str]]:
        """Choose objects as (z, x, kind), far to near, at positions that suit the street."""
        rng, things = self.rng, []
        for side, sign in enumerate((-1, 1)):
            kerb, walk, grass = self.kerb[side], self.walk[side], self.grass[side]
            path, verge, far = (kerb + grass, kerb, 1.5) if self.grass_first[side] else (kerb, kerb + walk, 1)
            spots = [(z, kerb * 0.45, kerb * 0.65, 'car', 0.65) for z in rng.uniform((7, 16), (11, 22))]
            spots += [(z, path + 0.3, path + walk - 0.2, 'person', 0.8) for z in rng.uniform(4.3, 7.5, 3) * far]
            spots += [(z, verge + 0.3, verge + grass, 'tree', 0.5) for z in rng.uniform((6, 13), (10, 20))]
            spots += [(z, verge + 0.5, verge + grass, 'bush', 0.5) for z in rng.uniform(6, 14, 2)]
            spots += [(rng.uniform(4.8, 7.5), kerb + 0.3, kerb + 0.7, kind, 0.8) for kind in ('sign', 'lamp')]
            for z, low, high, kind, odds in spots:
                if rng.random() < odds:
                    things.append((z, sign * rng.uniform(low, high), kind))
        if rng.random() < 0.4:
            things.append((rng.uniform(4.5, 8), rng.uniform(-2.5, 2.5), 'person'))
        return sorted(things, reverse=True)


def scene(seed: int, height: int = 256, width: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Render one street scene.

    Args:
        seed: Number of the scene, at least 0; the same seed and size give the same scene.
        height: Rows in pixels, at least 32.
        width: Columns in pixels, at least 32.

    Returns:
        The image, uint8 (height, width, 3) in RGB order, and the labels, uint8 (height, width): Cityscapes train ids,
        255 for ignored pixels.

    Raises:
        ValueError: If a side has fewer than 32 pixels or the seed is negative.
    """
    if seed < 0 or min(height, width) < 32:
        raise ValueError(f'a scene needs a seed >= 0 and sides of at least 32 pixels, got {seed}, {height}, {width}')
    rng = np.random.default_rng(seed)
    street = _Street(rng, height, width)
    street.sky()
    street.ground()
    things = street.place()
    street.shadows(things)
    street.houses()
    for z, x, kind in things:
        getattr(street, kind)(x, z)
    if rng.random() < 0.3:  # the bonnet of the camera's car
        bonnet = oval(width * rng.uniform(0.45, 0.55), height * 1.02, width * 0.52, height * rng.uniform(0.06, 0.12))
        street.fill(bonnet, vary(rng, PAINTS) * 0.5, IGNORE, 1)
    return street.grade(), street.labels


def _write(job: tuple[Path, Path, int, int, int]) -> None:
    image, labels = scene(*job[2:])
    for path, pixels in ((job[0], image[..., ::-1]), (job[1], labels)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image('.png', pixels))  # imwrite would hide a full disk


def _holds(root: Path, manifest: dict[str, int]) -> bool:
    """Return whether root holds the wanted set; False if it is empty, FileExistsError if it holds something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        content = json.loads((root / _MANIFEST).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        content = f'no readable {_MANIFEST}'
    if content == manifest:
        have = [len(list(root.glob(f'{folder}/*/*/*.png'))) for folder in ('leftImg8bit', 'gtFine')]
        if have == [manifest['num_train'] + manifest['num_val']] * 2:
            return True
        content = f'{have[0]} images and {have[1]} label files'
    raise FileExistsError(f'{root} holds {content}, not the scenes {manifest}: name another folder or remove this one.')


def _jobs(
    root: Path, split_index: int, count: int, size: tuple[int, int], seed: int
) -> list[tuple[Path, Path, int, int, int]]:
    """List the files of each scene of a split (0 train, 1 val), with its seed and size."""
    jobs, (split, cities) = [], tuple(CITIES.items())[split_index]
    for index in range(count):
        city = cities[index % len(cities)]
        image = root / 'leftImg8bit' / split / city / f'{city}_{index:06d}_000019_leftImg8bit.png'
        labels = root / 'gtFine' / split / city / f'{city}_{index:06d}_000019_gtFine_labelTrainIds.png'
        jobs.append((image, labels, (2 * seed + split_index) * 10**6 + index, *size))
    return jobs


def generate(
    root: str | Path, num_train: int = 320, num_val: int = 48, height: int = 256, width: int = 512, seed: int = 0
) -> Path:
    """Write a set of scenes in the Cityscapes folder layout; train and val share no seed.

    The set is built in a hidden folder beside root and renamed when complete. A complete set made
    with the same arguments is reused.

    Args:
        root: Folder of the set: missing, empty, or holding the same set.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        height: Rows of a scene in pixels.
        width: Columns of a scene in pixels.
        seed: Number of the set, at least 0; sets of different seeds share no scene.

    Returns:
        root as a path.

    Raises:
        FileExistsError: If root holds anything but this set.
        ValueError: If a count is not in 0..999999, the seed is negative, or a side has fewer than 32 pixels.
    """
    root = Path(root)
    if min(num_train, num_val, seed) < 0 or max(num_train, num_val) >= 10**6 or min(height, width) < 32:
        raise ValueError('generate needs counts of 0..999999, a seed >= 0 and sides of at least 32 pixels')
    manifest = dict(version=VERSION, num_train=num_train, num_val=num_val, height=height, width=width, seed=seed)
    if _holds(root, manifest):
        return root
    with Lock(root.with_name(f'.{root.name}.lock')) as lock:
        lock.take(wait=True)  # another process may draw the same set
        build = root.with_name(f'.{root.name}.writing')
        shutil.rmtree(build, ignore_errors=True)  # left by a process that was killed
        if _holds(root, manifest):
            return root
        build.mkdir()
        try:
            splits = enumerate((num_train, num_val))
            jobs = [job for i, count in splits for job in _jobs(build, i, count, (height, width), seed)]
            for job in ProgressBar(jobs, desc='scenes', unit='scene'):
                _write(job)
            (build / _MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n', encoding='utf-8')
            if root.exists():
                root.rmdir()
            os.rename(build, root)
        finally:
            shutil.rmtree(build, ignore_errors=True)
    return root
