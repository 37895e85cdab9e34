"""A validation split without near duplicates on the other side."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from mmseg_volo.autotrain.image_stats import THUMB, ImageStats
from mmseg_volo.autotrain.split import choose, groups_of
from mmseg_volo.errors import UsageError


def facts(image: np.ndarray) -> ImageStats:
    thumb = np.asarray(Image.fromarray(image).resize((THUMB, THUMB), 4), np.float32)
    return ImageStats((64, 64), False, 3, 'uint8', thumb, None, {})


def scene(number: int) -> np.ndarray:
    small = np.random.default_rng(number).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((64, 64)))


def saved_again(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'jpeg', quality=95)
    return np.asarray(Image.open(file))


def test_copies_are_one_group_and_others_are_not() -> None:
    seen = [facts(scene(i)) for i in range(20)]
    seen += [facts(saved_again(scene(i))) for i in range(10)] + [facts(scene(3))]
    groups = groups_of(seen)
    np.testing.assert_array_equal(groups[20:30], groups[:10])
    assert groups[30] == groups[3]
    assert len({*groups.tolist()}) == 20


def test_dark_images_with_something_in_them_are_no_duplicates() -> None:
    seen = [facts((scene(i) // 40).astype(np.uint8)) for i in range(10)]
    assert len({*groups_of(seen).tolist()}) == 10


def by_all_pairs(thumbs: np.ndarray) -> np.ndarray:
    """The groups, of the first image of each, by comparing all pairs."""
    thumbs = thumbs.reshape(len(thumbs), -1).astype(np.float64)
    limit = 0.25 + 0.05 * thumbs.std(1)
    squares = (thumbs**2).sum(1)
    bound = np.minimum(limit[:, None], limit) ** 2 * thumbs.shape[1] + 1e-6 * (squares[:, None] + squares)
    alike = ((thumbs[:, None] - thumbs) ** 2).sum(2) <= bound
    groups = np.arange(len(thumbs))
    while (lower := np.where(alike, groups, len(thumbs)).min(1)).tolist() != groups.tolist():
        groups = lower
    return groups


@pytest.mark.parametrize('seed', range(2))
@pytest.mark.parametrize('kind', ['noise', 'clusters', 'chain', 'dark'])
def test_groups_are_those_of_all_pairs(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    some = rng.uniform(0, 255, (12, THUMB, THUMB, 3))
    noise = rng.normal(0, 1, (240, THUMB, THUMB, 3))
    if kind == 'chain':  # from one to the next, in no order: only neighbours are alike
        steps = rng.permutation(240) / 20
        first = np.minimum(steps.astype(int), 10)
        part = (steps - first)[:, None, None, None]
        thumbs = some[first] * (1 - part) + some[first + 1] * part + noise / 9
    else:
        spread = dict(noise=1.0, clusters=2.75, dark=0.24)[kind]  # 2.75: about as far as near duplicates may be
        thumbs = some[rng.integers(0, 12, 240)] / (40 if kind == 'dark' else 1) + noise * spread
    found = groups_of([ImageStats((64, 64), False, 3, 'uint8', t.astype(np.float32), None, {}) for t in thumbs])
    expected = by_all_pairs(thumbs.astype(np.float32))
    assert 1 < len({*expected.tolist()}) < 240
    np.testing.assert_array_equal(found, expected)


def test_many_frames_of_one_camera_take_seconds() -> None:
    rng = np.random.default_rng(0)
    some = rng.uniform(0, 255, (THUMB, THUMB, 3)).astype(np.float32)
    frames = [some + rng.normal(0, 0.3, some.shape).astype(np.float32) for _ in range(6000)]
    start = time.perf_counter()
    groups = groups_of([ImageStats((64, 64), False, 3, 'uint8', frame, None, {}) for frame in frames])
    assert time.perf_counter() - start < 8  # comparing all pairs took 25
    assert not groups.any()


@pytest.mark.parametrize('seed', range(5))
def test_a_group_stays_on_one_side(seed: int) -> None:
    seen = [facts(scene(i // 3)) for i in range(60)]
    chosen, notes = choose(seen, [{0: 1, 1: 1}] * 60, 2, None, seed)
    assert {c // 3 for c in chosen}.isdisjoint({i // 3 for i in range(60) if i not in chosen})
    assert 9 <= len(chosen) <= 12
    assert 'near duplicates' in notes[0]


def test_the_seed_decides() -> None:
    seen, pixels = [facts(scene(i)) for i in range(30)], [{0: 1}] * 30
    one, again, other = (choose(seen, pixels, 1, 0.3, seed)[0] for seed in (1, 1, 2))
    assert one == again != other
    assert len(one) == 9


def test_rare_classes_are_on_both_sides() -> None:
    pixels = [{0: 10} for _ in range(50)]
    for i, index in ((7, 1), (31, 1), (12, 2), (13, 2), (44, 3)):
        pixels[i][index] = 1
    chosen, _ = choose([facts(scene(i)) for i in range(50)], pixels, 4, None, 0)
    assert len({7, 31} & {*chosen}) == 1 and len({12, 13} & {*chosen}) == 1
    assert 44 not in chosen  # the only one is for training


def test_too_few_images() -> None:
    with pytest.raises(UsageError, match='at least 2'):
        choose([facts(scene(0))], [{}], 2, None, 0)
    with pytest.raises(UsageError, match='--val-share'):
        choose([facts(scene(i)) for i in range(4)], [{}] * 4, 2, 1.5, 0)
