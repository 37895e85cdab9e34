"""Text files and paths as users give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmseg_volo.errors import UsageError
from mmseg_volo.io.text_files import local_path, read_lines, read_rows, read_text

WORDS = 'fond\nvoiture à deux\narbre\n'
ENCODINGS = ('utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32', 'cp1252', 'latin-1')


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_the_same_text_in_every_encoding(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / 'classes.txt'
    path.write_bytes(WORDS.replace('\n', end).encode(encoding))
    assert read_text(path) == WORDS


def test_big_endian_with_its_mark_and_the_end_of_dos(tmp_path: Path) -> None:
    path = tmp_path / 'classes.txt'
    path.write_bytes(b'\xfe\xff' + WORDS.encode('utf-16-be'))
    assert read_text(path) == WORDS
    path.write_bytes(b'car\r\ntree\r\n\x1a')
    assert read_lines(path) == ['car', 'tree']
    path.write_bytes(b'caf\xe9 \x81')  # \x81 is nothing in Windows-1252
    assert read_text(path) == 'café \x81'
    path.write_bytes('汽车\n'.encode('gb18030') * 3)
    assert len(read_lines(path)) == 3


@pytest.mark.parametrize(
    'content', [b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR', b'\xff\xd8\xff\xe0\x10JFIF', b'ab\0c\0\0d', b'\xff\xfea']
)
def test_a_binary_file_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'labels.txt'
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r'labels.txt is not a text file'):
        read_text(path)


def test_lines_lose_blanks_spaces_and_quotes_around(tmp_path: Path) -> None:
    path = tmp_path / 'labels.txt'
    path.write_text(
        '\n  car \n"traffic light"\n\n\'sky\'\nrock \'n\' roll\n#1 road\n"a" or "b"\n\u2028\n', encoding='utf-8'
    )
    assert read_lines(path) == ['car', 'traffic light', 'sky', "rock 'n' roll", '#1 road', '"a" or "b"']


TABLES = {
    'comma': 'Pixel Value, Class\n0, background\n1, "car, big"\n',
    'semicolon': 'Pixel Value;Class\n0;background\n1;car, big\n',
    'tab': 'Pixel Value\tClass\n0\tbackground\n1\tcar, big\n',
    'bar': 'Pixel Value | Class\n0 | background\n1 | car, big\n',
    'excel': 'sep=;\nPixel Value;Class\n0;background\n1;car, big\n',
    'blank rows': '\nPixel Value,Class\n,\n0,background\n"1","car, big"\n,,\n\n',
}


@pytest.mark.parametrize('name', TABLES)
def test_the_same_table_with_every_separator(tmp_path: Path, name: str) -> None:
    path = tmp_path / 'classes.csv'
    path.write_text(TABLES[name])
    assert read_rows(path) == [['Pixel Value', 'Class'], ['0', 'background'], ['1', 'car, big']]


def test_tables_of_one_column_of_many_and_none(tmp_path: Path) -> None:
    path = tmp_path / 'table.csv'
    for text, rows in {
        'image\na b.png\nc.png\n': [['image'], ['a b.png'], ['c.png']],
        '64 128 64\tAnimal\n192 0 128\tArchway\n': [['64 128 64', 'Animal'], ['192 0 128', 'Archway']],
        'a;1,5\nb;2,5\n': [['a', '1,5'], ['b', '2,5']],
        'a,b,c\n1,,3\n1,2\n4,5,6\n': [['a', 'b', 'c'], ['1', '', '3'], ['1', '2'], ['4', '5', '6']],
        '': [],
    }.items():
        path.write_text(text)
        assert read_rows(path) == rows


def test_a_quote_that_never_ends_is_said(tmp_path: Path) -> None:
    path = tmp_path / 'table.csv'
    path.write_text('image,mask\n"a.png,b.png\n' + 'c.png,d.png\n' * 20_000)
    with pytest.raises(UsageError, match=r'table.csv is not a table'):
        read_rows(path)


@pytest.mark.parametrize(
    'text',
    [
        'images/1 a.png',
        './images/1 a.png',
        '"images/1 a.png"',
        ' images\\1 a.png ',
        '.\\images\\1 a.png',
        'C:\\Users\\me\\data\\images\\1 a.png',
        'D:/x/images/1 a.png',
        '\\\\server\\share\\set\\images\\1 a.png',
        '/home/other/set/images/1 a.png',
        'file:///home/other/images/1%20a.png',
        'file:///C:/other/images/1%20a.png',
        'file://localhost/other/images/1 a.png',
        'data/images/1 a.png',
        'sets/data/images/1 a.png',
    ],
)
def test_paths_of_any_machine(tmp_path: Path, text: str) -> None:
    folder = tmp_path / 'sets/data'
    (folder / 'images').mkdir(parents=True)
    (folder / 'images/1 a.png').touch()
    (folder / '1 a.png').touch()  # a shorter tail
    assert local_path(text, folder) == folder / 'images/1 a.png'


def test_absolute_paths_that_exist_stay_and_what_is_nowhere_is_shown_in_the_folder(tmp_path: Path) -> None:
    folder, other = tmp_path / 'data', tmp_path / 'other.png'
    folder.mkdir()
    other.touch()
    assert local_path(str(other), folder) == other
    assert local_path(f'file://{other.as_posix()}', folder) == other
    assert local_path('../other.png', folder).resolve() == other
    (folder / '1.png').touch()
    assert local_path('masks/1.png', folder) == folder / 'masks/1.png'  # no mask is taken from another folder
    assert local_path('C:\\a\\..\\..\\other.png', folder) == folder / 'C:/a/../../other.png'
    for odd in ('', '""', ' ', 'file://', 'a\0b', 'x' * 5000, '\\', '/', 'C:', 'http://a/b?c', '~/x', '\x1b[31m'):
        assert isinstance(local_path(odd, folder), Path)
