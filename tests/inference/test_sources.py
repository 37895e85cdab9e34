"""Which files of folders and patterns are predicted, which are left alone, and what is never an input."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_volo.autotrain.discover import find_layout
from mmseg_volo.errors import UsageError
from mmseg_volo.inference.sources import find_inputs
from mmseg_volo.io.convert import to_rgb
from mmseg_volo.io.file_types import PICTURES, TO_CONVERT, VIDEOS, FileCounts, walk_folders


def laid(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(*inputs: object, out: Path, left: FileCounts | None = None, arrays: bool = False) -> list[str]:
    return [item.name.as_posix() for item in find_inputs([*map(str, inputs)], out, left, arrays)]


def test_every_kind_of_the_table_is_read(tmp_path: Path) -> None:
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (96, 64))
    formats = {'JPEG 2000': 'JPEG2000', 'Netpbm': 'PPM', 'Sun raster': None}
    for kind, suffixes in PICTURES.items():
        for suffix in suffixes:
            file, wanted = tmp_path / f'a{suffix}', formats.get(kind, kind.upper())
            if wanted is None:
                content = cv2.imencode('.ras', pixels[..., ::-1])[1].tobytes()
            else:
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, wanted)
                content = stream.getvalue()
            file.write_bytes(content)
            difference = np.abs(to_rgb(file).astype(int) - pixels).mean()
            assert difference < 8, suffix
    assert not {*TO_CONVERT} & {*VIDEOS, *(suffix for suffixes in PICTURES.values() for suffix in suffixes)}


def test_kinds_in_folders_and_patterns(tmp_path: Path) -> None:
    top = laid(tmp_path / 'd', 'a.jpg', 'b.GIF', 'c.avif', 'e.jfif', 'g.JP2', 'h.PnM', 'notes.txt', 'f.heic', 'k.Pcx')
    laid(top, 'deep/f.heic', '.DS_Store', '._a.jpg', '.a.1234abcd.png', 'Thumbs.db', 'n.npy')
    expected = ['a.jpg', 'b.GIF', 'c.avif', 'e.jfif', 'g.JP2', 'h.PnM']
    for given in (top, top / '*', top / '**'):
        left = FileCounts()
        assert names(given, out=tmp_path / 'out', left=left) == expected
        assert str(left).startswith(f'left alone: 2 .heic ({top}/') and 'convert them to JPEG or PNG), 1 .pcx (' in str(
            left
        )
        assert f'1 .txt ({top}/notes.txt)' in str(left) and f'1 .npy ({top}/n.npy)' in str(left)
        assert ('1 hidden' in str(left)) == (given != top / '*') and 'DS_Store' not in str(left)
    assert names(top, out=tmp_path / 'out', arrays=True) == sorted([*expected, 'n.npy'])
    with pytest.raises(UsageError, match=r'no image or video at .*heic.: give .*JPEG 2000.*; left alone: 1 .heic \('):
        names(top / '*.heic', out=tmp_path / 'out')


def test_linked_folders(tmp_path: Path) -> None:
    top, real = laid(tmp_path / 'd', 'a.jpg', 'z/b.jpg'), laid(tmp_path / 'real', 'r.png', 'deep/s.png')
    for link, target in (('link', real), ('again', real), ('b', top / 'z'), ('loop', top), ('z/up', tmp_path)):
        (top / link).symlink_to(target)
    (real / 'back').symlink_to(real)
    (top / 'gone.jpg').symlink_to(tmp_path / 'none.jpg')
    left = FileCounts()
    assert names(top, out=tmp_path / 'out', left=left) == ['a.jpg', 'z/b.jpg', 'again/r.png', 'again/deep/s.png']
    assert '2 link to a folder above' in str(left) and '1 broken link' in str(left)
    assert len(names(top / '**/*.png', out=tmp_path / 'out')) == 2  # however many paths lead to them
    assert [path.name for path, _, _ in walk_folders(top, FileCounts())] == ['d', 'z', 'again', 'deep']


def test_results_are_no_inputs(tmp_path: Path) -> None:
    top = laid(tmp_path / 'p', '1.jpg', 'masks/1.png', 'overlays/deep/1.jpg', 'other/2.jpg', 'areas.csv')
    laid(top, 'predictions.jsonl')
    link = tmp_path / 'link'
    link.symlink_to(top)
    for given in (top, link, top / '**', top / 'other/..'):
        for out in (top, link, top / 'other/..'):
            left = FileCounts()
            assert names(given, out=out, left=left) == ['1.jpg', 'other/2.jpg'] and not left
    left = FileCounts()
    assert names(top, out=tmp_path / 'elsewhere', left=left) == ['1.jpg', 'other/2.jpg']  # of an earlier call
    assert '2 folder of results' in str(left)
    assert names(top / 'masks', out=tmp_path / 'elsewhere') == ['1.png']
    for given in (top / 'masks', top / 'masks/1.png', top / 'masks/*'):
        with pytest.raises(UsageError, match=r'masks.* would be replaced by its own result: give another folder'):
            names(given, out=link)
    laid(top, 'out/deep/x.jpg')
    assert names(top, out=top / 'out') == ['1.jpg', 'other/2.jpg']
    assert names(top / 'other', out=top) == ['2.jpg']


def test_one_file_in_several_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = laid(tmp_path / 'd', 'a.b.png', 'a.c.png', 'deep/x.jpg')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'link').symlink_to(top)
    spellings = ['d/a.b.png', './d/deep/../a.b.png', top / 'a.b.png', 'link/a.b.png', 'd', 'link', 'd/*.png']
    assert names(*spellings, out=tmp_path / 'out') == ['a.b.png', 'a.c.png', 'deep/x.jpg']
    stems = [item.stem.as_posix() for item in find_inputs(['d'], tmp_path / 'out')]
    assert stems == ['a.b', 'a.c', 'deep/x']
    laid(top, 'deep.png', 'a.b.gif')
    with pytest.raises(UsageError, match=r'a.b.gif and d/a.b.png would be written to the same file'):
        names('d', out=tmp_path / 'out')
    (top / 'a.b.gif').unlink()
    assert 'deep.png' in names('d', out=tmp_path / 'out')  # beside deep/x.jpg: nothing is mixed


def test_layouts_take_the_same_kinds(tmp_path: Path) -> None:
    laid(tmp_path, 'images/a.jfif', 'masks/a.png', 'images/b.JP2', 'masks/b.png', 'images/c.heic', 'images/.d.jpg')
    (tmp_path / 'images/loop').symlink_to(tmp_path)
    layout = find_layout(tmp_path)
    assert [pair.image.name for pair in layout.pairs] == ['a.jfif', 'b.JP2']
    assert len(layout.notes) == 1 and '1 .heic (' in layout.notes[0] and '1 hidden (' in layout.notes[0]
    laid(other := tmp_path / 'other', 'some/a.avif', 'some/a.png')
    assert [(pair.image.suffix, pair.mask.suffix) for pair in find_layout(other).pairs] == [('.avif', '.png')]


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root reads everything')
def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    top = laid(tmp_path, 'a.jpg', 'closed/b.jpg')
    (top / 'closed').chmod(0)
    left = FileCounts()
    assert names(top, out=tmp_path / 'out', left=left) == ['a.jpg']
    (top / 'closed').chmod(0o700)
    assert '1 unreadable folder' in str(left)
