"""Classify files as pictures, videos or other by their suffixes, and walk folders.

`predict`, `train --data` and the web demo all use these tables.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

PICTURES = {  # what `image.py` reads: of an animation, the first frame
    'JPEG': ('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo'),
    'PNG': ('.png', '.apng'),
    'TIFF': ('.tif', '.tiff'),
    'WebP': ('.webp',),
    'BMP': ('.bmp', '.dib'),
    'GIF': ('.gif',),
    'AVIF': ('.avif',),
    'JPEG 2000': ('.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx'),
    'Netpbm': ('.pbm', '.pgm', '.ppm', '.pnm'),
    'Sun raster': ('.ras', '.sr'),
    'TGA': ('.tga',),
}
IMAGES = tuple(suffix for suffixes in PICTURES.values() for suffix in suffixes)
TIFFS = PICTURES['TIFF']
ARRAYS = ('.npy',)  # read by models of other channels than RGB
VIDEOS = tuple(
    '.mp4 .mov .m4v .avi .mkv .webm .mpg .mpeg .wmv .3gp .3g2 .asf .flv .m2ts .mts .m2v .mxf .ogv .vob'.split()
)
RAW_PHOTOS = ('.dng', '.cr2', '.cr3', '.nef', '.arw', '.raf', '.orf', '.rw2')
TO_CONVERT = ('.heic', '.heif', '.hif', '.jxl', '.psd', '.svg', '.exr', '.ico', '.pcx', '.dcm', '.jp3d', *RAW_PHOTOS)
NOISE = ('thumbs.db', 'desktop.ini')  # of Windows
SHOWN = 8  # kinds in a message


class FileCounts:
    """Count files by kind, and summarise them in one line.

    Args:
        heading: what happened to them.
    """

    def __init__(self, heading: str = 'left alone'):
        self.heading = heading
        self._paths: dict[str, dict[Path, None]] = {}

    def add(self, path: Path, what: str | None = None) -> None:
        """Count a file by its suffix, or as `what`; hidden files count only if they are pictures or videos."""
        suffix = path.suffix.lower()
        if what is None and path.name.startswith('.'):
            if suffix not in IMAGES + VIDEOS or path.name.startswith('._'):  # macOS's metadata of a file
                return
            what = 'hidden'
        elif what is None and path.name.lower() in NOISE:
            return
        self._paths.setdefault(what or suffix or 'without a suffix', {})[path] = None

    def __len__(self) -> int:
        return len(self._paths)

    def __str__(self) -> str:
        """Return e.g. `left alone: 1 .heic (a/b.heic: convert it to JPEG or PNG), 12 .txt (a/b.txt, ...)`."""
        order = sorted(self._paths, key=lambda what: (what not in TO_CONVERT, -len(self._paths[what]), what))
        counts = []
        for what in order[:SHOWN]:
            number, first = len(self._paths[what]), next(iter(self._paths[what]))
            remedy = f': convert {"it" if number == 1 else "them"} to JPEG or PNG' if what in TO_CONVERT else ''
            counts.append(f'{number} {what} ({first}{", ..." if number > 1 else ""}{remedy})')
        if rest := sum(len(self._paths[what]) for what in order[SHOWN:]):
            counts.append(f'{rest} of other kinds')
        return f'{self.heading}: {", ".join(counts)}'


def walk_folders(
    top: Path, left: FileCounts, skip: Callable[[Path, str], bool] = lambda folder, real: False
) -> Iterator[tuple[Path, str, list[Path]]]:
    """Yield `top` and all folders below it but hidden ones: path, path with links resolved, sorted files.

    Links to folders are followed last; a folder that several links lead to is yielded once.

    Args:
        top: the folder.
        left: counts the folders that cannot be read or followed.
        skip: whether to leave out a folder and all below it; takes its path, and its path with links resolved.
    """
    above = os.path.realpath(top)
    seen: set[str] = set()
    waiting = deque([top])

    def unreadable(error: OSError) -> None:
        left.add(Path(error.filename), 'unreadable folder')

    while waiting:
        start = waiting.popleft()
        for name, below, names in os.walk(start, onerror=unreadable):
            folder, real = Path(name), os.path.realpath(name)
            if real in seen or skip(folder, real):
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(n for n in below if not n.startswith('.'))
            for link in [folder / n for n in below if (folder / n).is_symlink()]:
                target = os.path.realpath(link)
                if target == above or above.startswith(os.path.join(target, '')):
                    left.add(link, 'link to a folder above')
                else:
                    waiting.append(link)
            yield folder, real, [folder / n for n in sorted(names)]
