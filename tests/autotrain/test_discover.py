"""Which files of a folder belong together, by their names alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.layouts import found, laid

from mmseg_volo.autotrain.discover import find_layout
from mmseg_volo.errors import UsageError


@pytest.mark.parametrize(
    'image, mask, split',
    [
        ('images/a.jpg', 'masks/a.png', None),
        ('images/deep/er/a.jpg', 'annotations/deep/er/a.png', None),
        ('images/train/a.jpg', 'labels/train/a.png', 'train'),
        ('train/images/a.jpg', 'train/Annotations/a.png', 'train'),
        ('Validation/img/a.tif', 'Validation/gt/a.png', 'val'),
        ('img_dir/val/a.jpg', 'ann_dir/val/a.png', 'val'),
        ('train/a.png', 'train_labels/a_L.png', 'train'),
        ('train_images/a.png', 'train_masks/a_mask.gif', 'train'),
        ('imagesTr/a.png', 'labelsTr/a.png', 'train'),
        ('JPEGImages/a.jpg', 'SegmentationClass/a.png', None),
        (
            'leftImg8bit/train/x/x_000000_000019_leftImg8bit.png',
            'gtFine/train/x/x_000000_000019_gtFine_labelIds.png',
            'train',
        ),
        ('a.jpg', 'a_mask.png', None),
        ('train/a_sat.jpg', 'train/a_mask.png', 'train'),
        ('some/a.jpg', 'some/a.png', None),
        ('images/a.npy', 'masks/a.npy', None),
        ('images/train/a.jpg', 'masks/a.png', 'train'),
    ],
)
def test_usual_layouts(tmp_path: Path, image: str, mask: str, split: str | None) -> None:
    laid(tmp_path, image, mask, image.replace('a.', 'b.').replace('a_sat', 'b_sat').replace('019', '020'))
    other = mask.replace('a.', 'b.').replace('a_', 'b_').replace('019', '020')
    laid(tmp_path, other)
    assert (image, mask, split) in found(tmp_path)
    assert len(found(tmp_path)) == 2


def test_test_images_need_no_masks(tmp_path: Path) -> None:
    laid(tmp_path, 'imagesTr/a.png', 'labelsTr/a.png', 'imagesTs/b.png')
    assert found(tmp_path) == {('imagesTr/a.png', 'labelsTr/a.png', 'train'), ('imagesTs/b.png', None, 'test')}


def test_lists_of_splits(tmp_path: Path) -> None:
    for name in 'abc':
        laid(tmp_path, f'JPEGImages/{name}.jpg', f'SegmentationClass/{name}.png', f'SegmentationObject/{name}.png')
    lists = tmp_path / 'ImageSets' / 'Segmentation'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('a\n')
    (lists / 'val.txt').write_text('JPEGImages/b.jpg SegmentationClass/b.png\n')
    assert found(tmp_path) == {
        ('JPEGImages/a.jpg', 'SegmentationClass/a.png', 'train'),
        ('JPEGImages/b.jpg', 'SegmentationClass/b.png', 'val'),
    }
    assert 'in no list' in find_layout(tmp_path).notes[0]
    (lists / 'val.txt').write_text('a\nb\n')
    with pytest.raises(UsageError, match='a.jpg is in the lists of train and val'):
        find_layout(tmp_path)
    (lists / 'val.txt').write_text('z\n')
    with pytest.raises(UsageError, match='val list: 1 names are no image .* e.g. z'):
        find_layout(tmp_path)


@pytest.mark.parametrize('mark', [',', ';', '\t'])
def test_a_table(tmp_path: Path, mark: str) -> None:
    laid(tmp_path, 'x/1.jpg', 'y/one.png', 'x/2.jpg', 'y/two.png', 'class_dict.csv')
    rows = ['filename,mask,split', 'x/1.jpg,y/one.png,train', 'x/2.jpg,y/two.png,valid']
    (tmp_path / 'data.csv').write_text('\n'.join(rows).replace(',', mark))
    expected = {('x/1.jpg', 'y/one.png', 'train'), ('x/2.jpg', 'y/two.png', 'val')}
    assert found(tmp_path) == expected
    (tmp_path / 'data.csv').write_text('\n'.join([*rows, 'x/3.jpg,y/one.png,train']).replace(',', mark))
    with pytest.raises(UsageError, match='names files that are missing: .*3.jpg'):
        find_layout(tmp_path)


def test_options_name_folders(tmp_path: Path) -> None:
    laid(tmp_path, 'pics/train/a.jpg', 'truth/train/a.png', 'other/a.png')
    with pytest.raises(UsageError, match='--images FOLDER --masks FOLDER'):
        find_layout(tmp_path)
    assert found(tmp_path, images='pics', masks='truth') == {('pics/train/a.jpg', 'truth/train/a.png', 'train')}
    with pytest.raises(FileNotFoundError, match='--masks none'):
        find_layout(tmp_path, 'pics', 'none')


@pytest.mark.parametrize(
    'names, said',
    [
        (['images/a.jpg', 'masks/a.png', 'images/b.jpg'], r'1 images have no mask \(images/b.jpg\).*--skip-unpaired'),
        (['images/a.jpg', 'masks/a.png', 'masks/c.png'], r'1 masks have no image \(masks/c.png\).*--skip-unpaired'),
        (['images/a.jpg', 'images/a.png', 'masks/a.png'], r'a.jpg and .*a.png both match .*masks.a.png: rename'),
        (
            ['images/a.jpg', 'masks/a.png', 'labels/a.png'],
            r'a.png and .*a.png both match .*images.a.jpg: rename.*--masks FOLDER',
        ),
        (['images/a.jpg', 'masks/b.png'], r'no mask has the name of an image, e.g. .*a.jpg and .*b.png'),
        (['images/a.jpg'], 'none is a mask'),
        (['masks/a.png'], '1 masks and no images'),
        (['readme.txt'], 'no picture .* it holds .*readme.txt'),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_layout(laid(tmp_path, *names))


def test_unpaired_files_are_left_out_on_demand(tmp_path: Path) -> None:
    laid(tmp_path, 'images/a.jpg', 'masks/a.png', 'images/b.jpg', 'masks/c.png')
    assert found(tmp_path, skip_unpaired=True) == {('images/a.jpg', 'masks/a.png', None)}


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no folder at'):
        find_layout(tmp_path / 'none')
