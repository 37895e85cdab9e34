"""Folders as well-known data sets have them, and habits that many others share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import folder_data as fd
from helpers.folder_training import apart, train  # noqa: F401
from helpers.layouts import NAMES, both, filled, found, laid, lines, splits

from mmseg_volo.autotrain.discover import find_layout
from mmseg_volo.autotrain.unused_files import unused_notes
from mmseg_volo.errors import UsageError
from mmseg_volo_cli import main


def test_voc_is_split_by_its_lists_for_segmentation(tmp_path: Path) -> None:
    laid(tmp_path, *both('VOC2012/JPEGImages/{}.jpg', 'VOC2012/SegmentationClass/{}.png', *'abcd'))
    laid(tmp_path, 'VOC2012/JPEGImages/boxes_only.jpg')
    for task, trained in (('Segmentation', 'ab'), ('Main', 'c'), ('Action', 'd')):
        lists = tmp_path / 'VOC2012/ImageSets' / task
        lists.mkdir(parents=True)
        (lists / 'train.txt').write_text(lines(*trained))
        (lists / 'val.txt').write_text(lines(*sorted({*'abcd'} - {*trained})))
    assert splits(tmp_path) == {'train': ['a', 'b'], 'val': ['c', 'd']}
    assert find_layout(tmp_path).notes == ['1 images are in no list and are left out']


def cityscapes(root: Path, *ends: str) -> Path:
    for split in ('train', 'val'):
        name = f'{split}/x/x_000000_000019'
        laid(root, f'leftImg8bit/{name}_leftImg8bit.png', *(f'gtFine/{name}_gtFine_{end}.png' for end in ends))
    return root


@pytest.mark.parametrize(
    'ends, used',
    [
        (['labelIds', 'color', 'instanceIds'], 'labelIds'),
        (['color', 'instanceIds', 'labelIds', 'labelTrainIds', 'instanceTrainIds'], 'labelTrainIds'),
        (['color'], 'color'),
    ],
)
def test_colours_and_instances_beside_indices_are_not_asked_about(tmp_path: Path, ends: list[str], used: str) -> None:
    cityscapes(tmp_path, *ends)
    layout = find_layout(tmp_path)
    assert all(pair.mask.stem.endswith(f'_{used}') for pair in layout.pairs) and len(layout.pairs) == 2
    said = [f'masks named *_{used} are used, '] * (len(ends) > 1)
    assert all(note.startswith(begin) for note, begin in zip(layout.notes, said, strict=False))
    assert all(f'*_{end}' in layout.notes[0] for end in ends)


@pytest.mark.parametrize(
    'image, field, manual',
    [
        ('images/{}_training.tif', 'mask/{}_training_mask.gif', '1st_manual/{}_manual1.gif'),
        ('images/{}_dr.jpg', 'mask/{}_dr_mask.tif', 'manual1/{}_dr.tif'),
    ],
)
def test_fields_of_view_are_not_taken_for_vessels(tmp_path: Path, image: str, field: str, manual: str) -> None:
    for pattern in (image, field, manual):
        laid(tmp_path, *(pattern.format(name) for name in ('21', '22')))
    with pytest.raises(UsageError, match='2 masks have no image .*--masks FOLDER which folders count'):
        find_layout(tmp_path)
    pairs = found(tmp_path, images='images', masks=manual.partition('/')[0])
    assert {mask for _, mask, _ in pairs} == {manual.format('21'), manual.format('22')}


def test_te_is_for_tests(tmp_path: Path) -> None:
    laid(tmp_path, *both('DUTS-TR/DUTS-TR-Image/{}.jpg', 'DUTS-TR/DUTS-TR-Mask/{}.png', 'a', 'b'))
    laid(tmp_path, *both('DUTS-TE/DUTS-TE-Image/{}.jpg', 'DUTS-TE/DUTS-TE-Mask/{}.png', 'c'))
    assert splits(tmp_path) == {'train': ['a', 'b'], 'test': ['c']}


def test_images_of_one_folder_are_not_one_image(tmp_path: Path) -> None:
    laid(tmp_path, 'road/image_2/um_000000.png', 'road/image_2/um_000001.png', 'road/gt_image_2/um_lane_000000.png')
    with pytest.raises(UsageError, match='no mask has the name of an image'):
        find_layout(tmp_path)


@pytest.mark.parametrize('text', [', '.join(NAMES[:4]), str(NAMES[:4]), f'{";".join(NAMES[:4])};\n'])
def test_one_line_may_hold_all_names(tmp_path: Path, text: str) -> None:
    filled(tmp_path, {'train_ids.txt': text, 'val_ids.txt': lines(*NAMES[4:])})
    assert splits(tmp_path) == {'train': NAMES[:4], 'val': NAMES[4:]}


def test_lists_of_folds_are_not_chosen_from(tmp_path: Path) -> None:
    texts = {f'{split}_fold{k}.txt': lines(NAMES[k]) for k in range(2) for split in ('train', 'val')}
    layout = find_layout(filled(tmp_path, texts))
    assert layout.splits.keys() == {None}
    assert layout.notes == [
        'train_fold0.txt, train_fold1.txt, val_fold0.txt, val_fold1.txt are folds, and none is used: give lists '
        '(train.txt, val.txt) of the one meant'
    ]
    (tmp_path / 'train.txt').write_text(lines(*NAMES[:4]))
    (tmp_path / 'val.txt').write_text(lines(*NAMES[4:]))
    assert splits(tmp_path) == {'train': NAMES[:4], 'val': NAMES[4:]}


def test_tables_may_hold_names_without_folders(tmp_path: Path) -> None:
    rows = {'train': NAMES[:4], 'val': NAMES[4:]}
    texts = {f'{s}.csv': 'image,mask\n' + lines(*names, pattern='{}.jpg,{}.png') for s, names in rows.items()}
    filled(tmp_path, texts)
    assert splits(tmp_path) == rows
    (tmp_path / 'val.csv').write_text(f'image,mask\n{NAMES[4]}.jpg,{NAMES[5]}.png\n')
    with pytest.raises(UsageError, match='row 2 names 05.png as the mask of 04.jpg, which by its name has .*04.png'):
        find_layout(tmp_path)


def test_validation_images_without_any_mask_are_left_out(tmp_path: Path) -> None:
    laid(tmp_path, *both('train/{}_sat.jpg', 'train/{}_mask.png', 'a', 'b'), 'valid/c_sat.jpg', 'test/d_sat.jpg')
    expected = {'train': ['a_sat', 'b_sat'], 'test': ['d_sat']}
    said = ['1 validation images have no mask and are left out', '1 test images have no mask and are not scored']
    assert splits(tmp_path) == expected and find_layout(tmp_path).notes == said
    rows = [f'{s},{s}/{n}_sat.jpg,' for s, n in (('valid', 'c'), ('test', 'd'))]
    rows += [f'train,train/{n}_sat.jpg,train/{n}_mask.png' for n in 'ab']
    heading = 'split,sat_image_path,mask_path'
    (tmp_path / 'metadata.csv').write_text('\n'.join([heading, *rows]))
    assert splits(tmp_path) == expected and find_layout(tmp_path).notes == said
    (tmp_path / 'metadata.csv').write_text('\n'.join([heading, *rows[:3], 'train,train/b_sat.jpg,']))
    with pytest.raises(UsageError, match='names no mask for: .*b_sat.jpg; complete them, or remove these lines'):
        find_layout(tmp_path)


def test_lists_of_any_kind_are_named_and_side_files_are_not(tmp_path: Path) -> None:
    texts = {name: '' for name in ('train_ids.npy', 'label_map.pbtxt', 'meta.pkl')}
    texts |= {f'images/{name}.jpg.aux.xml': '' for name in NAMES}
    assert unused_notes(find_layout(filled(tmp_path, texts)).unused) == [
        'not used, though named like a split: train_ids.npy',
        'not used: label_map.pbtxt, meta.pkl',
    ]


def test_a_test_of_images_without_masks_says_what_can_be_done(capfd: pytest.CaptureFixture) -> None:
    data = fd.write(Path('data'), 6)
    fd.write(Path('more'), 1)
    (data / 'test_images').mkdir()
    Path('more/images/00.png').rename(data / 'test_images/x.png')
    assert train(data, '--epochs', '1') == 0
    (checkpoint,) = Path('work').glob('best*.pth')
    capfd.readouterr()
    assert main(['test', 'work/recipe/work.py', str(checkpoint), '--work-dir', 'tested']) == 2
    assert re.search(r'error: .*x.png has no mask in its list.*--format-only --out FOLDER', capfd.readouterr().err)
    assert main(['test', 'work/recipe/work.py', str(checkpoint), '--format-only', '--out', 'masks']) == 0
    assert Path('masks/x.png').is_file()
