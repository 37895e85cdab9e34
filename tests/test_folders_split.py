"""A validation split without near duplicates on the other side."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mmseg_volo.errors import UsageError
from mmseg_volo.folders.look import THUMB, Facts
from mmseg_volo.folders.split import choose, groups_of


def facts(image: np.ndarray) -> Facts:
    thumb = np.asarray(Image.fromarray(image).resize((THUMB, THUMB), 4), np.float32)
    return Facts((64, 64), False, 3, 'uint8', thumb, None, {})


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
