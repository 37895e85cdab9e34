"""Which mask belongs to which image, where names do not agree word for word."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from helpers.layouts import both, found, laid

from mmseg_volo.autotrain.discover import find_layout
from mmseg_volo.errors import UsageError

ACCENT = [unicodedata.normalize(form, 'é') for form in ('NFC', 'NFD')]


@pytest.mark.parametrize(
    'image, mask, names',
    [
        ('images/{}.png', 'masks/{}.png', [f'tile_x{x}_y{y}' for x in range(2) for y in range(2)]),
        ('images/{}.png', 'masks/{}.png', [f'tile_y{y}_x{x}' for x in range(2) for y in range(2)]),
        ('images/{}.jpg', 'masks/{}_mask.png', ['0_L', '0_R', '1_L', '1_R']),
        ('{}.png', '{}_mask.png', ['0_L', '0_R']),
        ('{}.png', '{}_L.png', ['0016E5_1', '0016E5_2']),
        ('images/{}.jpg', 'masks/{}.jpg.png', ['0', '1']),
        ('images/{}.png', 'masks/{}_gt.png', ['img_y1', 'img_y2']),
        ('images/{}.tif', 'masks/{}.TIF', ['a', 'b']),
        ('images/{}.jpg', 'masks/{}.png', ['scan-y-01', 'scan-y-02']),
        ('images/{}.jpg', 'masks/{}.png', ['IMG_1', 'IMG_1 (1)', 'IMG_1 (2)']),
        ('images/{}.ome.tif', 'masks/{}.png', ['a', 'b']),
        ('images/{}.jpg', 'masks/{}.png', ['frame.0001', 'frame.0002']),
        ('imagesTr/{}_0000.png', 'labelsTr/{}.png', ['im_000', 'im_001']),
        ('imagesTr/{}.png', 'labelsTr/{}.png', ['im_0000', 'im_0001']),
        ('train/{}.png', 'trainannot/{}.png', ['0', '1']),
        ('{}/image.png', '{}/mask.png', ['s0', 's1']),
        ('images/img_{}.jpg', 'masks/mask_{}.png', ['000', '001']),
        ('some/image{}.png', 'some/mask{}.png', ['000', '001']),
        ('some/s_img{}.png', 'some/s_mask{}.png', ['1', '2']),
        ('raw_photos/{}.jpg', 'my_masks/{}.png', ['0', '1']),
        ('images/{}_training.tif', 'masks/{}_manual1.gif', ['21', '22']),
        ('seg/images/{}.jpg', 'seg/labels/{}.png', ['0', '1']),
        ('segmentation_dataset/images/train/{}.jpg', 'segmentation_dataset/masks/train/{}.png', ['0', '1']),
        ('Original/{}.tif', 'Ground Truth/{}.tif', ['0', '1']),
        ('photos/{}.jpg', 'ground_truth/{}.png', ['0', '1']),
        ('leftImg8bit/train/7/{}_leftImg8bit.png', 'gtFine/train/7/{}_gtFine_labellevel3Ids.png', ['0001', '0002']),
    ],
)
def test_all_are_paired(tmp_path: Path, image: str, mask: str, names: list[str]) -> None:
    laid(tmp_path, *both(image, mask, *names))
    assert {(i, m) for i, m, _ in found(tmp_path)} == {(image.format(name), mask.format(name)) for name in names}


def test_folders_that_are_named_pair_alike(tmp_path: Path) -> None:
    laid(tmp_path, *both('a/{}.png', 'b/{}.png', 'tile_x0_y0', 'tile_x0_y1'))
    assert len(found(tmp_path, images='a', masks='b')) == 2


def test_ways_of_writing_accents_are_one(tmp_path: Path) -> None:
    laid(tmp_path, f'images/{ACCENT[0]}.jpg', f'masks/{ACCENT[1]}.png')
    assert len(found(tmp_path)) == 1


def test_folders_of_one_split_are_kept_apart(tmp_path: Path) -> None:
    laid(tmp_path, *both('train1/images/{}.jpg', 'train1/masks/{}.png', 'a'))
    laid(tmp_path, *both('train2/images/{}.jpg', 'train2/masks/{}.png', 'a'))
    assert {(image, split) for image, _, split in found(tmp_path)} == {
        ('train1/images/a.jpg', 'train'),
        ('train2/images/a.jpg', 'train'),
    }


def test_no_wide_guess_pairs_what_is_left_over(tmp_path: Path) -> None:
    laid(tmp_path, *both('images/{}.jpg', 'masks/{}.png', 'c1/1', 'c2/1'), 'images/c3/2.jpg', 'masks/c4/2.png')
    with pytest.raises(UsageError, match=r'images have no mask \(images/c3/2.jpg\).*no image \(masks/c4/2.png\)'):
        find_layout(tmp_path)
    assert len(found(tmp_path, skip_unpaired=True)) == 2


def test_a_guess_is_said(tmp_path: Path) -> None:
    laid(tmp_path, *both('images/{}.jpg', 'masks/{}_car.png', '1', '2'))
    assert find_layout(tmp_path).notes == ['names are matched as * with *_car: rename files if that is wrong']


@pytest.mark.parametrize(
    'masks, said',
    [
        (
            ['masks/{}_car.png', 'masks/{}_tree.png'],
            r'0_car.png and .*0_tree.png are masks .* each class \(car, tree\)',
        ),
        (
            ['masks/car/{}.png', 'masks/tree/{}.png'],
            'are masks of one image.*--masks FOLDER which folder counts',
        ),
        (['masks/task-{0}-annotation-{0}-by-1-tag-car-0.png'] * 2, r'Label Studio.*\(car\).*merge'),
    ],
)
def test_several_masks_of_an_image_are_named(tmp_path: Path, masks: list[str], said: str) -> None:
    for number in range(3):
        laid(tmp_path, f'images/{number}.jpg', *(mask.format(number) for mask in masks))
    with pytest.raises(UsageError, match=said):
        find_layout(tmp_path)


def test_objects_in_files_of_their_own_are_named(tmp_path: Path) -> None:
    laid(tmp_path, *(f'{i}/{name}.png' for i in 'ab' for name in (f'images/{i}', 'masks/x', 'masks/y')))
    with pytest.raises(UsageError, match='a file for each class or object'):
        find_layout(tmp_path)


def test_channels_in_files_of_their_own_are_refused(tmp_path: Path) -> None:
    laid(tmp_path, *both('imagesTr/{}_0000.png', 'labelsTr/{}.png', 'a', 'b'), 'imagesTr/a_0001.png')
    laid(tmp_path, 'imagesTr/b_0001.png')
    with pytest.raises(UsageError, match='a_0000.png and .*a_0001.png are channels of one image'):
        find_layout(tmp_path)


LABELME = '{"shapes": [], "imagePath": "a.jpg", "imageData": null}'
COCO = '{"images": [], "annotations": [], "categories": []}'


@pytest.mark.parametrize(
    'name, text, said',
    [
        ('a.json', LABELME, 'LabelMe polygons .*labelme2voc'),
        ('train/_annotations.coco.json', COCO, 'COCO .*annToMask'),
        ('labels/a.txt', '0 0.1 0.1 0.5 0.1 0.5 0.5\n', 'YOLO polygons'),
        ('labels/a.txt', '0 0.1 0.1 0.5 0.1\n', 'YOLO boxes .*boxes do not say'),
        ('via.json', '{"a.jpg1": {"filename": "a.jpg", "regions": []}}', 'VGG Image Annotator'),
        ('all.xml', '<annotations><image id="0"/></annotations>', 'CVAT .*Segmentation mask'),
        ('Annotations/a.xml', '<annotation><object/></annotation>', 'Pascal VOC'),
        ('project.json', '[{"id": 1, "data": {"image": "a"}, "annotations": []}]', 'Label Studio'),
        ('train.csv', 'ImageId,EncodedPixels\na.jpg,1 2\n', 'run lengths'),
        ('map.geojson', '{"type": "FeatureCollection", "features": []}', 'GeoJSON'),
    ],
)
def test_other_annotations_are_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    laid(tmp_path, 'images/a.jpg', 'images/b.jpg', name)
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f'holds no masks, but .*{said}'):
        find_layout(tmp_path)


@pytest.mark.parametrize('text', ['[' * 100_000, '{', '\0\1\2', '<!DOCTYPE x>'])
def test_broken_annotations_are_no_reason_to_end(tmp_path: Path, text: str) -> None:
    laid(tmp_path, 'images/a.jpg')
    for name in ('a.json', 'b.xml', 'c.csv', 'd.txt', 'train.txt'):
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match='none is a mask'):
        find_layout(tmp_path)
