"""What masks hold and mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import folder_data as fd
from PIL import Image

from mmseg_volo.autotrain.class_names import read_names
from mmseg_volo.autotrain.image_stats import ImageStats, collect_stats
from mmseg_volo.autotrain.label_map import Labels, infer_label_map
from mmseg_volo.autotrain.recipe import class_weights
from mmseg_volo.config import load_config
from mmseg_volo.datasets.mask_codes import MaskRule, count_codes
from mmseg_volo.errors import BadFileError, UsageError

ROWS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
RGB_CODES = [c.tolist() for c in fd.COLOURS]


@pytest.mark.parametrize(
    'write, rule',
    [
        (fd.as_index, MaskRule('values', [0, 1, 2])),
        (fd.as_colours, MaskRule('colours', RGB_CODES)),
        (fd.as_palette, MaskRule('values', [0, 1, 2])),
        (fd.as_palette, MaskRule('colours', RGB_CODES)),
        (lambda path, m: Image.fromarray(np.stack([m] * 3, -1)).save(path), MaskRule('values', [0, 1, 2])),
        (lambda path, m: Image.fromarray(m).convert('LA').save(path), MaskRule('values', [0, 1, 2])),
        (lambda path, m: Image.fromarray(fd.COLOURS[m]).convert('RGBA').save(path), MaskRule('colours', RGB_CODES)),
        (lambda path, m: cv2.imwrite(str(path), m.astype(np.uint16) * 300), MaskRule('values', [0, 300, 600])),
    ],
)
def test_every_kind_gives_the_same_indices(tmp_path: Path, write: fd.Write, rule: MaskRule) -> None:
    path = tmp_path / 'mask.png'
    write(path, ROWS)
    found = rule.read(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, ROWS)


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / 'mask.npy', ROWS.astype(np.int64))
    np.testing.assert_array_equal(MaskRule('values', [0, 1, 2]).read(tmp_path / 'mask.npy'), ROWS)


def test_black_and_white(tmp_path: Path) -> None:
    path = tmp_path / 'mask.png'
    Image.fromarray(np.array([[0, 255, 200], [127, 128, 3]], np.uint8)).save(path)
    np.testing.assert_array_equal(MaskRule('binary', [0, 1]).read(path), [[0, 1, 1], [0, 1, 0]])
    Image.fromarray(np.array([[False, True]])).save(path)
    np.testing.assert_array_equal(MaskRule('values', [0, 1]).read(path), [[0, 1]])


def test_more_than_255_classes_have_16_bits(tmp_path: Path) -> None:
    path = tmp_path / 'mask.png'
    cv2.imwrite(str(path), np.array([[0, 255, 299, 7000]], np.uint16))
    found = MaskRule('values', [*range(300)], [7000]).read(path)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, [[0, 255, 299, 65535]])


@pytest.mark.parametrize(
    'rule, said', [(MaskRule('colours', RGB_CODES[:2]), '30,30,200'), (MaskRule('values', [0, 1]), 'has colours')]
)
def test_what_is_no_class_is_named_with_the_file(tmp_path: Path, rule: MaskRule, said: str) -> None:
    path = tmp_path / 'mask.png'
    fd.as_colours(path, ROWS)
    with pytest.raises(BadFileError, match=f'mask.png.*{said}'):
        rule.read(path)


def test_counts_are_exact() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1 << 24, 50).astype(np.int32)[rng.integers(0, 50, (40, 30))]
    values, n = np.unique(codes, return_counts=True)
    assert count_codes(codes) == dict(zip(values.tolist(), n.tolist(), strict=True))


def facts(counts: Mapping[int, int], coloured: bool = False, palette: tuple[int, ...] | None = None) -> ImageStats:
    return ImageStats((8, 8), False, 3, 'uint8', np.zeros((16, 16, 3), np.float32), None, counts, coloured, palette)


def meant(
    counts: Mapping[int, int], *names: str, ignore: Sequence[str] = (), coloured: bool = False, binary: bool = False
) -> Labels:
    named, source, _ = read_names(names, Path('nowhere'))
    return infer_label_map([facts(counts, coloured)], named, source, ignore, binary)


@pytest.mark.parametrize(
    'values, names, classes, codes, ignored',
    [
        ([0, 1, 2], (), ('class_0', 'class_1', 'class_2'), [0, 1, 2], []),
        ([0, 255], (), ('background', 'foreground'), [0, 255], []),
        ([0, 1], (), ('background', 'foreground'), [0, 1], []),
        ([0, 255], ('crack',), ('background', 'crack'), [0, 255], []),
        ([0, 1, 255], (), ('background', 'foreground'), [0, 1], [255]),
        ([0, 1, 2, 255], (), ('class_0', 'class_1', 'class_2'), [0, 1, 2], [255]),
        ([0, 1, 2, 255], ('a', 'b', 'c'), ('a', 'b', 'c'), [0, 1, 2], [255]),
        ([0, 1, 2, 255], ('a', 'b', 'c', 'd'), ('a', 'b', 'c', 'd'), [0, 1, 2, 255], []),
        ([1, 2, 3], ('a', 'b', 'c'), ('a', 'b', 'c'), [1, 2, 3], []),
        ([0, 2], ('a', 'b', 'c'), ('a', 'b', 'c'), [0, 1, 2], []),
        ([10, 20, 30], ('a', 'b', 'c'), ('a', 'b', 'c'), [10, 20, 30], []),
        ([0, 7, 9], ('x=7', 'y=9', 'z=0'), ('x', 'y', 'z'), [7, 9, 0], []),
        ([0, 7, 9], ('x=7', 'y=9', 'void=0'), ('x', 'y'), [7, 9], [0]),
        ([0, 1, 2], ('a', 'void', 'b'), ('a', 'b'), [0, 2], [1]),
        ([0, 1, 255], ('a', 'b', 'void'), ('a', 'b'), [0, 1], [255]),
        ([*range(256)], (), tuple(f'class_{i}' for i in range(256)), [*range(256)], []),
    ],
)
def test_values(values: list[int], names: tuple, classes: tuple, codes: list[int], ignored: list[int]) -> None:
    found = meant({value: 1 if value == 255 else 5 for value in values}, *names)
    assert (found.classes, found.rule.codes, found.rule.ignored) == (classes, codes, ignored)


def test_colours() -> None:
    counts = {0x000000: 4, 0x800000: 5, 0x008000: 6}
    found = meant(counts, coloured=True)
    assert found.classes == ('class_0_0_0', 'class_0_128_0', 'class_128_0_0')
    assert found.palette == ((0, 0, 0), (0, 128, 0), (128, 0, 0))
    found = meant(counts, 'car=128,0,0', 'tree=0,128,0', ignore=['0,0,0'], coloured=True)
    assert (found.classes, found.rule.codes, found.rule.ignored) == (
        ('car', 'tree'),
        [[128, 0, 0], [0, 128, 0]],
        [[0, 0, 0]],
    )
    assert meant({0: 3, 0xFFFFFF: 3}, coloured=True).classes == ('background', 'foreground')


@pytest.mark.parametrize('coloured', [False, True])
def test_blurred_black_and_white(coloured: bool) -> None:
    grey = 0x010101 if coloured else 1
    counts = {value * grey: 1 for value in range(256)}
    found = meant(counts, 'crack', coloured=coloured, binary=True)
    assert (found.classes, found.rule.kind, found.rule.codes) == (('background', 'crack'), 'binary', [0, 1])
    assert found.pixels(facts(counts, coloured)) == {0: 128, 1: 128}


def test_palettes() -> None:
    alike = [facts({0: 3, 1: 2}, palette=(0, 0xFF0000)), facts({0: 3}, palette=(0,))]
    found = infer_label_map(alike, [], '', [], False)
    assert (found.rule.kind, found.rule.codes, found.palette) == ('values', [0, 1], ((0, 0, 0), (255, 0, 0)))
    own = [facts({0: 3, 1: 2}, palette=(0, 0xFF0000)), facts({0: 3, 1: 1}, palette=(0xFF0000, 0))]
    found = infer_label_map(own, [], '', [], False)
    assert (found.rule.kind, found.rule.codes) == ('colours', [[0, 0, 0], [255, 0, 0]])


@pytest.mark.parametrize(
    'counts, names, options, said',
    [
        ({0: 1, 1: 1, 2: 1}, ('a', 'b'), {}, 'which one is ignored.*--ignore 0 or --ignore 2'),
        ({0: 1, 5: 1, 9: 1, 11: 1}, ('a', 'b'), {}, 'hold 4 values .0; 5; 9; 11. and --classes has 2 names'),
        ({0: 1, 1: 1}, ('a=0', 'b=2'), {}, 'no class of --classes: 1; 50 % .*NAME=1.*--ignore 1'),
        ({0: 9}, (), {}, 'one class only'),
        ({0: 1, 255: 3}, ('a', 'b'), dict(ignore=['c']), '--ignore c is neither a value nor a name'),
        ({0: 1, 0xFF: 3, 0xFF00: 1}, ('a', 'b', 'c'), dict(coloured=True), 'does not say which is which.*a=0,0,0'),
        ({0: 1, 0xFF: 3}, ('a=0,0,0', 'b=1,1,1'), dict(coloured=True), 'no class of --classes: 0,0,255; 75 %'),
        (dict.fromkeys(range(300), 2), (), dict(coloured=True), 'JPEG .*as PNG'),
        ({0: 900, 255: 900} | dict.fromkeys(range(1, 200), 1), (), {}, '--binary'),
        ({0: 1, 1: 1}, ('a', 'a'), {}, 'a is listed twice'),
    ],
)
def test_what_cannot_be_told_is_asked(counts: dict, names: tuple, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        meant(counts, *names, **options)


def test_an_empty_class_is_named() -> None:
    (note,) = meant({0: 5, 2: 5}, 'a', 'b', 'c').notes
    assert 'no pixel in any mask' in note and '(b)' in note


def test_weights_are_those_of_the_camvid_config(camvid: Path) -> None:
    labels = [np.array(Image.open(path)) for path in (camvid / 'labels' / 'train').glob('*.png')]
    counts = np.bincount(np.stack(labels).ravel(), minlength=12)[:11]
    assert class_weights(counts.tolist()) == pytest.approx(load_config('volo_camvid').class_weight, abs=0.011)
    assert class_weights([10, 20, 30]) is None


def test_bad_files_are_listed(tmp_path: Path) -> None:
    root = fd.write(tmp_path, 4)
    (root / 'images' / '00.png').write_bytes(b'no picture')
    Image.fromarray(fd.indices(1)[::2]).save(root / 'masks' / '01.png')
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(root / 'masks/02.png')
    pairs = [(root / 'images' / f'{i:02}.png', root / 'masks' / f'{i:02}.png') for i in range(4)]
    with pytest.raises(UsageError) as error:
        collect_stats([*pairs, (root / 'images/03.png', root / 'masks/none.png')])
    for said in ('00.png .10 bytes.', '01.png is 64x32, its image 64x64', 'none.png is missing'):
        assert re.search(said, str(error.value)), said
