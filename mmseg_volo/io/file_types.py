"""Which files are pictures and which are videos, by their suffixes, and what else a folder holds.

One table for all that look into folders, take uploads, or say what may be given: `predict`, `train --data`, the demo.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

PICTURES = {  # what `pictures.py` reads, of an animation the first frame
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
VIDEOS = ('.mp4', '.mov', '.m4v', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv')
VIDEOS += ('.3gp', '.3g2', '.asf', '.flv', '.m2ts', '.mts', '.m2v', '.mxf', '.ogv', '.vob')
TO_CONVERT = ('.heic', '.heif', '.hif', '.jxl', '.psd', '.svg', '.exr', '.ico', '.pcx', '.dcm', '.jp3d')
TO_CONVERT += ('.dng', '.cr2', '.cr3', '.nef', '.arw', '.raf', '.orf', '.rw2')  # cameras' raw files
NOISE = ('thumbs.db', 'desktop.ini')  # of Windows
SHOWN = 8  # kinds in a message


class FileCounts:
    """Counts files of folders by kind, and says it in one line.

    Args:
        heading: what was done with them.
    """

    def __init__(self, heading: str = 'left alone'):
        self.heading = heading
        self._paths: dict[str, dict[Path, None]] = {}

    def add(self, path: Path, what: str | None = None) -> None:
        """A file, or `what` it is; hidden ones count if they are pictures or videos."""
        suffix = path.suffix.lower()
        if what is None and path.name.startswith('.'):
            if suffix not in IMAGES + VIDEOS or path.name.startswith('._'):  # macOS' notes on a file
                return
            what = 'hidden'
        elif what is None and path.name.lower() in NOISE:
            return
        self._paths.setdefault(what or suffix or 'without a suffix', {})[path] = None

    def __len__(self) -> int:
        return len(self._paths)

    def __str__(self) -> str:
        """`left alone: 1 .heic (a/b.heic: convert it to JPEG or PNG), 12 .txt (a/b.txt, ...)`."""
        order = sorted(self._paths, key=lambda what: (what not in TO_CONVERT, -len(self._paths[what]), what))
        parts = []
        for what in order[:SHOWN]:
            number, first = len(self._paths[what]), next(iter(self._paths[what]))
            remedy = f': convert {"it" if number == 1 else "them"} to JPEG or PNG' if what in TO_CONVERT else ''
            parts.append(f'{number} {what} ({first}{", ..." if number > 1 else ""}{remedy})')
        if rest := sum(len(self._paths[what]) for what in order[SHOWN:]):
            parts.append(f'{rest} of other kinds')
        return f'{self.heading}: {", ".join(parts)}'


def walk_folders(
    top: Path, left: FileCounts, skip: Callable[[Path, str], bool] = lambda folder, real: False
) -> Iterator[tuple[Path, str, list[Path]]]:
    """All folders from `top` down, without hidden ones: path, path without links, files in order.

    Links to folders are followed, after all folders without; a folder that several lead to comes once.

    Args:
        top: the folder.
        left: counts what cannot be looked into.
        skip: whether to leave a folder and all below it out; given its path, and that without links.
    """
    above = os.path.realpath(top)
    seen, waiting = set(), deque([top])

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
