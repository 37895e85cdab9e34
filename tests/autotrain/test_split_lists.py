"""What a data set says of its splits, and that nothing of it is left out in silence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers import folder_data as fd
from helpers.layouts import NAMES, filled, found, laid, lines, splits

from mmseg_volo.autotrain.discover import find_layout
from mmseg_volo.autotrain.unused_files import unused_notes
from mmseg_volo.datasets.lists import UNDERSTOOD
from mmseg_volo.errors import UsageError
from mmseg_volo_cli import main


def test_a_recipe_in_the_data_folder_is_no_split_of_the_user(tmp_path: Path) -> None:
    """`cd DATA; train --data .` writes ./work_dirs/NAME/recipe with its lists; images that are added later count."""
    filled(tmp_path, {})
    recipe = tmp_path / 'work_dirs/run/recipe'
    recipe.mkdir(parents=True)
    for split, names in {'train': NAMES[:3], 'val': NAMES[3:5]}.items():
        (recipe / f'{split}.csv').write_text('image,mask\n' + lines(*names, pattern='images/{}.jpg,masks/{}.png'))
    (recipe / UNDERSTOOD).touch()
    assert splits(tmp_path) == {None: NAMES}
    assert not find_layout(tmp_path).unused


TABLE = ''.join(
    f'{name}.jpg,{split}\n' for name, split in zip(NAMES, ['train'] * 3 + ['val', 'test', 'test'], strict=True)
)
USUAL = {'train': NAMES[:3], 'val': [NAMES[3]], 'test': NAMES[4:]}


@pytest.mark.parametrize(
    'texts',
    [
        {'train.txt': lines(*NAMES[:3]), 'val.txt': lines(NAMES[3]), 'test.txt': lines(*NAMES[4:])},
        {'split/train.lst': lines(*NAMES[:3]), 'split/val.lst': lines(NAMES[3]), 'split/test.lst': lines(*NAMES[4:])},
        {f'{split}_list.txt': lines(*names, pattern='images/{}.jpg masks/{}.png') for split, names in USUAL.items()},
        {f'{split}.txt': lines(*names, pattern='images/{}.jpg\tmasks/{}.png') for split, names in USUAL.items()},
        {f'{split}.txt': lines(*names, pattern='images/{}.jpg, masks/{}.png') for split, names in USUAL.items()},
        {f'{split}.txt': lines(*names, pattern='C:\\data\\images\\{}.jpg') for split, names in USUAL.items()},
        {f'{split}.txt': lines(*names, pattern='/home/me/images/{}.jpg') for split, names in USUAL.items()},
        {f'{split}.csv': lines('image', *names) for split, names in USUAL.items()},
        {f'{split}.csv': lines(*names) for split, names in USUAL.items()},
        {f'{split}.txt': lines('filename', *names) for split, names in USUAL.items()},
        {f'{split}_split.json': json.dumps(names) for split, names in USUAL.items()},
        {'split.csv': f'image,split\n{TABLE}'},
        {'meta/splits.csv': f'filename;subset\n{TABLE.replace(",", ";")}'},
        {'splits.csv': ',train,val,test\n0,00,03,04\n1,01,,05\n2,02,,\n'},
        {'meta.csv': 'id,is_val,is_test\n' + ''.join(f'{n},{n == "03"},{n > "03"}\n' for n in NAMES)},
        {'splits.json': json.dumps(USUAL)},
        {'split.json': json.dumps({f'{name}.jpg': split for split, names in USUAL.items() for name in names})},
        {
            'dataset.json': json.dumps(
                {
                    f'{split}ing' if split != 'val' else 'validation': [
                        {'image': f'./images/{name}.jpg', 'label': f'./masks/{name}.png'} for name in names
                    ]
                    for split, names in USUAL.items()
                }
            )
        },
    ],
)
def test_splits_that_are_given_are_followed(tmp_path: Path, texts: dict[str, str]) -> None:
    filled(tmp_path, texts)
    assert splits(tmp_path) == USUAL
    assert find_layout(tmp_path).unused == []


def test_validation_is_drawn_from_what_is_for_both(tmp_path: Path) -> None:
    texts = {'trainval.txt': lines(*NAMES[:4]), 'test.txt': lines(*NAMES[4:])}
    assert splits(filled(tmp_path, texts)) == {'train': NAMES[:4], 'test': NAMES[4:]}
    (tmp_path / 'val.txt').write_text(lines(NAMES[0]))
    assert splits(tmp_path) == {'val': NAMES[:1], 'train': NAMES[1:4], 'test': NAMES[4:]}
    (tmp_path / 'train.txt').write_text(lines(NAMES[1]))  # the union of both says nothing more
    assert splits(tmp_path) == {'val': NAMES[:1], 'train': NAMES[1:2], 'test': NAMES[4:]}


@pytest.mark.parametrize(
    'folders, expected, said',
    [
        (['trainset', 'valset', 'testset'], ['train', 'val', 'test'], ''),
        (['train_data', 'Validation-Data', 'test_data'], ['train', 'val', 'test'], ''),
        (['training_set', 'evaluation', 'test_set'], ['train', 'val', 'test'], 'evaluation is taken for validation'),
        (['Train', 'hold-out'], ['train', 'val'], 'hold-out is taken for validation'),
        (['train', 'val', 'holdout'], ['train', 'val', 'test'], 'holdout is taken for test'),
        (['trainval', 'test'], ['train', 'test'], ''),
        (['ISIC_Training_v2', 'ISIC_Test_v2'], ['train', 'test'], 'taken for splits by a word'),
        (['train', 'unseen'], ['train', None], '1 images are of no split and count as training images (unseen/images)'),
        (['test_tube', 'other'], [None, None], 'test_tube: looks like a split but is not recognised'),
    ],
)
def test_folders_of_splits(tmp_path: Path, folders: list[str], expected: list[str | None], said: str) -> None:
    for folder in folders:
        laid(tmp_path, f'{folder}/images/{folder}_a.jpg', f'{folder}/masks/{folder}_a.png')
    by_folder = {image.partition('/')[0]: split for image, _, split in found(tmp_path)}
    assert by_folder == dict(zip(folders, expected, strict=True))
    notes = ' '.join(find_layout(tmp_path).notes)
    assert said in notes and bool(said) == bool(notes)


def test_a_flat_folder_of_test_images(tmp_path: Path) -> None:
    laid(tmp_path, 'train/images/a.jpg', 'train/masks/a.png', 'test/b.jpg')
    assert splits(tmp_path) == {'train': ['a'], 'test': ['b']}


def test_names_of_files_say_splits_if_all_do(tmp_path: Path) -> None:
    laid(tmp_path, *(f'{name}{end}.bmp' for name in ('train_1', 'testA_1') for end in ('', '_anno')))
    assert splits(tmp_path) == {'train': ['train_1'], 'test': ['testA_1']}
    laid(tmp_path, 'other.bmp', 'other_anno.bmp')
    assert splits(tmp_path).keys() == {None}
    assert 'look like splits' in find_layout(tmp_path).notes[0]


@pytest.mark.parametrize(
    'texts, said',
    [
        ({'folds.csv': 'image,fold\n' + ''.join(f'{name}.jpg,{name}\n' for name in NAMES)}, 'folds.csv has a column'),
        ({'split.csv': 'image,split\n' + ''.join(f'{name}.jpg,0\n' for name in NAMES)}, "has the split '0'"),
        ({'splits.json': json.dumps([{'train': NAMES[:3], 'val': NAMES[3:]}] * 2)}, 'holds 2 folds'),
        (
            {
                'a/train.txt': lines('00'),
                'a/val.txt': lines('01'),
                'b/train.txt': lines('01'),
                'b/val.txt': lines('00'),
            },
            'say different splits',
        ),
        ({'train.txt': 'nothing\nof it\n', 'notes.txt': 'x'}, 'not used, though named like a split: train.txt'),
    ],
)
def test_what_is_not_followed_is_said(tmp_path: Path, texts: dict[str, str], said: str) -> None:
    layout = find_layout(filled(tmp_path, texts))
    assert layout.splits.keys() == {None}
    assert said in ' '.join([*layout.notes, *unused_notes(layout.unused)])


def test_what_is_not_used_is_named_once(tmp_path: Path) -> None:
    texts = {f'other/{n}.json': '{}' for n in range(30)} | {f'images/{n}.xml': '' for n in range(30)}
    texts |= {'images/deep.json': '[' * 100_000, 'README.txt': '', 'hyper.csv': 'a,b\n1,2\n'}
    layout = find_layout(filled(tmp_path, texts))
    assert layout.unused == ['other/', 'hyper.csv', 'images/*.xml (30 files)', 'images/deep.json']
    assert unused_notes([f'{n}.csv' for n in range(20)]) == [
        'not used: 0.csv, 1.csv, 2.csv, 3.csv, 4.csv, 5.csv, 6.csv, 7.csv and 12 more'
    ]


def test_masks_of_listed_test_images_may_be_missing(tmp_path: Path) -> None:
    filled(tmp_path, {'train.txt': lines(*NAMES[:4]), 'val.txt': lines(NAMES[4]), 'test.txt': lines(NAMES[5])})
    (tmp_path / f'masks/{NAMES[5]}.png').unlink()
    assert splits(tmp_path) == {'train': NAMES[:4], 'val': [NAMES[4]], 'test': [NAMES[5]]}


def test_a_table_is_split_by_lists(tmp_path: Path) -> None:
    table = 'image,mask\n' + ''.join(f'images/{name}.jpg,truth/{n}.png\n' for n, name in enumerate(NAMES))
    texts = {'data.csv': table, 'train.txt': lines(*NAMES[:4]), 'val.txt': lines(*NAMES[4:])}
    filled(tmp_path, texts, 'old/{}.png')
    laid(tmp_path, *(f'truth/{n}.png' for n in range(6)))
    assert splits(tmp_path) == {'train': NAMES[:4], 'val': NAMES[4:]}
    assert ('images/00.jpg', 'truth/0.png', 'train') in found(tmp_path)


@pytest.mark.parametrize('name', ['../{}', 'images/../../{}', '..\\{}', '{absolute}', 'file://{absolute}'])
@pytest.mark.parametrize('table', ['data.csv', 'train.txt'])
def test_lists_do_not_lead_out_of_the_folder(tmp_path: Path, name: str, table: str) -> None:
    laid(tmp_path, 'secret.png')
    root = filled(tmp_path / 'data', {})
    path = name.format('secret.png', absolute=(tmp_path / 'secret.png').as_posix())
    row = f'image,mask\n{path},masks/00.png\n' if table.endswith('csv') else f'{path} masks/00.png\n'
    (root / table).write_text(row)
    with pytest.raises(UsageError, match=f'{table}, (row 2|line 1) names .*lies outside of .* --allow-outside'):
        find_layout(root)
    (pair,) = find_layout(root, allow_outside=True).pairs
    assert pair.image.samefile(tmp_path / 'secret.png')


@pytest.mark.skipif(not hasattr(os, 'symlink') or os.name == 'nt', reason='needs links')
def test_links_in_the_folder_may_lead_anywhere(tmp_path: Path) -> None:
    laid(tmp_path, 'elsewhere/a.png', 'data/masks/a.png')
    (tmp_path / 'data/link').symlink_to(tmp_path / 'elsewhere')
    table = tmp_path / 'data/data.csv'
    table.write_text('image,mask\nlink/a.png,masks/a.png\n')
    assert len(find_layout(table.parent).pairs) == 1
    table.write_text('image,mask\nlink/../elsewhere/a.png,masks/a.png\n')
    with pytest.raises(UsageError, match='are missing|lies outside'):
        find_layout(table.parent)


def test_control_characters_of_lists_are_escaped(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'missing: .*a\\x1b\[31m.png'):
        find_layout(filled(tmp_path, {'data.csv': 'image,mask\na\x1b[31m.png,masks/00.png\n'}))


def test_the_command_line_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    fd.write(tmp_path / 'data', 6)
    laid(tmp_path / 'data', 'more/a.png')
    for name, text in {'trainval.txt': lines(*NAMES[:4]), 'test.txt': lines(*NAMES[4:]), 'hyper.csv': 'a,b\n'}.items():
        (tmp_path / 'data' / name).write_text(text)
    plan = ['train', '--data', 'data', '--model', 'caformer_s18', '--weights', 'none', '--size', '64', '--plan-only']
    assert main(plan) == 0
    said = capsys.readouterr().out
    assert 'train 3, val 1, test 2' in said and 'note: not used: more/, hyper.csv\n' in said
    tests = (tmp_path / 'work_dirs/data_caformer_s18/recipe/test.csv').read_text()
    assert '04' in tests and '05' in tests
    (tmp_path / 'data/data.csv').write_text(f'image,mask\n{tmp_path}/data.png,masks/00.png\n')
    laid(tmp_path, 'data.png')
    assert main(plan) == 2
    assert 'lies outside of data' in capsys.readouterr().err
