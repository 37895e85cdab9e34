"""Files in, results out: what is done is left alone, what fails is told at the end, the others go on."""

from __future__ import annotations

import errno
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mmseg_volo.apis import Prediction, predict
from mmseg_volo.errors import UsageError, sentence
from mmseg_volo.folders.bands import as_picture
from mmseg_volo.images import as_rgb
from mmseg_volo.inference.areas import count
from mmseg_volo.inference.geotiff import predict_geotiff
from mmseg_volo.inference.images import write_image
from mmseg_volo.inference.inputs import Item, find_inputs
from mmseg_volo.inference.options import Options, in_windows
from mmseg_volo.inference.polygons import need_rasterio
from mmseg_volo.inference.rasters import loses_georeference, open_raster
from mmseg_volo.inference.record import NAME, Record, fingerprint
from mmseg_volo.inference.threads import Behind, ahead
from mmseg_volo.kinds import TIFFS, Tally
from mmseg_volo.progress import Bar

STOPS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # the next file would not fare better
PAUSE = 0.5  # seconds between two looks at what other processes have done
SHOWN = 20  # failures in the message; all are in the record


def predict_files(
    model: nn.Module, inputs: Sequence[str], out: str | Path, options: Options | None = None, overwrite: bool = False
) -> list[Path]:
    """Writes `OUT/KIND/NAME.SUFFIX` for each kind of output and each image, video and GeoTIFF.

    A file that cannot be read is reported and left out; the others are done all the same. What an earlier call with the
    same model and options wrote completely is left as it is, while the input does not change. Several processes may
    fill one folder with the same model and options: they share the files that are given to more than one of them.

    Args:
        model: from `mmseg_volo.load`.
        inputs: see `find_inputs`.
        out: folder, made if need be.
        options: `Options()` if None.
        overwrite: do all anew.

    Returns:
        The files that were written, now or before; a folder where there is one per frame of a video.

    Raises:
        UsageError: there is nothing to do, or it cannot be done, said before anything is written; or some could not be
            predicted (after the others were written).
    """
    options, out = options or Options(), Path(out).expanduser()
    left = Tally('left alone')
    items = find_inputs(inputs, out, left, arrays=_sees_bands(model))
    if 'polygons' in options.outputs:
        need_rasterio('polygons')
    if importlib.util.find_spec('rasterio') is None:
        tiffs = (item.path for item in items if item.path.suffix.lower() in TIFFS)
        if lost := next((path for path in tiffs if loses_georeference(path)), None):
            raise UsageError(f'{lost} is a GeoTIFF: keeping its georeference needs rasterio, pip install rasterio')
    with in_windows(model, options.windows):
        run = _Run(model, items, out, options, overwrite)
        try:
            _say_kinds(items, left)
            return run.go()
        finally:
            run.record.close()


def _say_kinds(items: Sequence[Item], left: Tally) -> None:
    """Which kinds of files are done and which are not, where there are several."""
    taken = Tally('taken')
    for item in items:
        taken.add(item.path)
    if left or len(taken) > 1:
        print(taken)
    if left:
        print(left)


def _sees_bands(model: nn.Module) -> bool:
    """Whether it is for other images than RGB."""
    return model.cfg.test_pipeline[0]['type'] == 'LoadBands'


class _Run:
    def __init__(self, model: nn.Module, items: Sequence[Item], out: Path, options: Options, overwrite: bool):
        self.model, self.items, self.out, self.options = model, items, out, options
        settings = dict(model=fingerprint(model), **asdict(options))
        del settings['outputs']  # each file knows which it has
        try:
            self.record = Record(out, settings, items, overwrite)
        except OSError as error:
            raise UsageError(f'{out} cannot be written to ({error.strerror}): give another folder to --out') from error
        self.failed: dict[Item, str] = {}
        self.begun: set[Item] = set()  # in this process
        self.bands = _sees_bands(model)

    def go(self) -> list[Path]:
        wanted = self.options.outputs
        todo = [item for item in self.items if not self.record.is_done(item, wanted)]
        if len(todo) < len(self.items):
            print(f'{len(self.items) - len(todo)} of {len(self.items)} are done already; --overwrite does them anew')
        try:
            with (
                Behind() as behind,
                closing(self._sources(todo)) as sources,
                Bar(sources, 'predicting', len(todo), 'file', delay=0, disable=not todo) as bar,
            ):
                for item, source in bar:
                    self._predict(item, source, behind)
            if 'areas' in wanted:
                self.record.write_areas(self.model.dataset_meta['classes'])
        except OSError as error:
            done = sum(self.record.is_done(item, wanted) for item in self.items)
            raise UsageError(
                f'{self.out} cannot be written to ({error.strerror}); {done} of {len(self.items)} files '
                f'are done, the same command goes on'
            ) from error
        done = [item for item in self.items if self.record.is_done(item, wanted)]
        print(f'{", ".join(wanted)} of {len(done)} files in {self.out}')
        if self.failed:
            more = f'; {len(self.failed) - SHOWN} more, see {self.out / NAME}' if len(self.failed) > SHOWN else ''
            told = '; '.join([*self.failed.values()][:SHOWN])
            raise UsageError(f'{len(self.failed)} of {len(self.items)} files left out: {told}{more}')
        files = (self.record.entries[str(item.name)]['outputs'] for item in done)
        return [self.out / name for kinds in files for kind in wanted for name in kinds[kind]]

    def _sources(self, todo: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
        """What `_read` gives of each file that no other process does, and of those that one has not done in the end."""
        said = False
        while todo:
            with closing(ahead(_read(self._claimed(todo), self.bands))) as sources:
                yield from sources
            self.record.refresh()
            self.failed |= {item: why for item in todo if (why := self.record.failure(item))}
            wanted, settled = self.options.outputs, self.begun | self.failed.keys()
            todo = [item for item in todo if item not in settled and not self.record.is_done(item, wanted)]
            if todo:
                if not said:
                    print(f'waiting for other processes, which are at {len(todo)} of the files')
                said = True
                time.sleep(PAUSE)

    def _claimed(self, items: Sequence[Item]) -> Iterator[Item]:
        for item in self.record.claim(items, self.options.outputs):
            self.begun.add(item)
            yield item

    def _predict(self, item: Item, source: Any, behind: Behind) -> None:
        if isinstance(source, Exception):
            self._fail(item, source)
        elif item.is_video:
            from mmseg_volo.inference.video import predict_video  # needs PyAV

            self._keep(item, lambda: predict_video(self.model, item, self.out, self.options))
        elif not isinstance(source, np.ndarray):
            with source:
                self._keep(item, lambda: predict_geotiff(self.model, item, source, self.out, self.options))
        else:
            try:
                found = predict(self.model, item.path if self.bands else source, self.options.maps)
            except Exception as error:
                self._fail(item, error)
            else:
                behind.submit(self._keep, item, lambda: self._write(item, source, found))

    def _write(self, item: Item, image: np.ndarray, found: Prediction) -> tuple[dict[str, list[str]], dict[str, Any]]:
        kinds = [kind for kind in self.options.outputs if kind != 'areas']
        files = write_image(self.out, item.stem, image, found, self.options, kinds)
        return files, dict(pixels=count(found.mask, len(found.classes)).tolist())

    def _keep(self, item: Item, results: Callable[[], tuple[dict[str, list[str]], dict[str, Any]]]) -> None:
        """Makes results and tells the record of them."""
        try:
            files, kept = results()
        except Exception as error:
            if getattr(error, 'errno', None) in STOPS:
                raise
            self._fail(item, error)
        else:
            self.record.add(item, dict(outputs={'areas': [], **files}, **kept))

    def _fail(self, item: Item, error: Exception) -> None:
        """Leaves a file out for an error that comes of the file.

        Raises:
            Exception: the error, if it is our own.
        """
        text = ' '.join(sentence(error).split())
        if isinstance(error, MemoryError | RuntimeError) and 'memory' in f'{text}{type(error).__name__}'.lower():
            text = 'not enough memory: see --windows, --device'
        elif not isinstance(error, OSError | ValueError):
            raise error
        self.failed[item] = text if str(item.path) in text else f'{item.path}: {text}'
        self.record.add(item, dict(error=self.failed[item]))


def _read(items: Sequence[Item], bands: bool) -> Iterator[tuple[Item, Any]]:
    """Each with its pixels (with `bands` to look at only), an open raster, none of a video, or why it is unreadable."""
    for item in items:
        source = None
        try:
            if item.path.suffix.lower() in TIFFS:
                source = open_raster(item.path)
            if source is None and not item.is_video:
                source = as_picture(item.path) if bands else as_rgb(item.path)
        except (OSError, ValueError) as error:
            source = error
        yield item, source
