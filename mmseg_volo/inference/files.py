"""Files in, results out: what is done is left alone, what fails is told at the end, the others go on."""

from __future__ import annotations

import errno
import importlib.util
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmseg_volo.errors import UsageError, as_errors, message_of, printable
from mmseg_volo.inference.api import Prediction, predict
from mmseg_volo.inference.areas import pixels_per_class
from mmseg_volo.inference.geotiff import predict_geotiff
from mmseg_volo.inference.manifest import MANIFEST_NAME, Manifest, fingerprint
from mmseg_volo.inference.options import Options
from mmseg_volo.inference.outputs import write_image
from mmseg_volo.inference.polygons import need_rasterio
from mmseg_volo.inference.sources import Item, find_inputs
from mmseg_volo.io.convert import to_rgb
from mmseg_volo.io.file_types import TIFFS, FileCounts
from mmseg_volo.io.multiband import to_picture
from mmseg_volo.io.raster_reader import loses_georeference, open_georeferenced
from mmseg_volo.io.steps import MULTI_BAND_STEPS
from mmseg_volo.models.cpu import prediction_settings
from mmseg_volo.models.segmentors.unwrap import unwrap_segmentor
from mmseg_volo.utils.parallel import WriteBehind, prefetch
from mmseg_volo.utils.progress import ProgressBar

FILES = ('rasterio', 'av', 'cv2', 'PIL')  # packages whose errors, whatever their type, come of the file
STOPS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # the next file would not fare better
PAUSE = 0.5  # seconds between two looks at what other processes have done
NOTES = 5  # sentences about what is odd
SHOWN = 20  # failures in the message; all are in the record


def predict_files(
    model: nn.Module, inputs: Sequence[str], out: str | Path, options: Options | None = None, overwrite: bool = False
) -> list[Path]:
    """Writes `OUT/KIND/NAME.SUFFIX` for each kind of output and each image, video and GeoTIFF.

    A file that cannot be read, predicted or written is reported and left out; the others are done all the same. What an
    earlier call with the same model and options wrote completely is left as it is, while the input does not change.
    Several processes may fill one folder with the same model and options: they share the files that are given to more
    than one of them.

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
        Exception: the device is lost, so that no other file could be predicted.
    """
    model, options, out = unwrap_segmentor(model), options or Options(), Path(os.path.expanduser(out))
    left = FileCounts('left alone')
    items = find_inputs(inputs, out, left, arrays=_sees_bands(model))
    if 'polygons' in options.outputs:
        need_rasterio('polygons')
    if importlib.util.find_spec('rasterio') is None:
        tiffs = (item.path for item in items if item.path.suffix.lower() in TIFFS)
        if lost := next((path for path in tiffs if loses_georeference(path)), None):
            raise UsageError(f'{lost} is a GeoTIFF: keeping its georeference needs rasterio, pip install rasterio')
    run = _Run(model, items, out, options, overwrite)
    try:
        _say_kinds(items, left)
        return run.go()
    finally:
        run.record.close()


def _say_kinds(items: Sequence[Item], left: FileCounts) -> None:
    """Which kinds of files are done and which are not, where there are several."""
    taken = FileCounts('taken')
    for item in items:
        taken.add(item.path)
    if left or len(taken) > 1:
        print(taken)
    if left:
        print(left)


def _sees_bands(model: nn.Module) -> bool:
    """Whether it is for other images than RGB."""
    return model.cfg.test_pipeline[0]['type'] in MULTI_BAND_STEPS


class _Run:
    def __init__(self, model: nn.Module, items: Sequence[Item], out: Path, options: Options, overwrite: bool):
        self.model, self.items, self.out, self.options = model, items, out, options
        depends_on = dict(model=fingerprint(model), **prediction_settings(model), **asdict(options))
        del depends_on['outputs']  # each file knows which it has
        try:
            self.record = Manifest(out, depends_on, items, overwrite)
        except OSError as error:
            raise UsageError(f'{out} cannot be written to ({error.strerror}): give another folder to --out') from error
        self.failed: dict[Item, str] = {}
        self.begun: set[Item] = set()  # in this process
        self.noted: dict[str, None] = {}
        self.bands = _sees_bands(model)

    def go(self) -> list[Path]:
        wanted = self.options.outputs
        todo = [item for item in self.items if not self.record.is_done(item, wanted)]
        for item in self.items:
            if item not in todo:
                self._fail_partly(item, self.record.entries[str(item.name)])
        if len(todo) < len(self.items):
            print(f'{len(self.items) - len(todo)} of {len(self.items)} are done already; --overwrite does them anew')
        try:
            try:
                self._predict_all(todo)
            finally:
                if 'areas' in wanted:
                    self.record.write_areas(self.model.dataset_meta['classes'])
        except BrokenPipeError:  # who reads what we print is gone
            raise
        except OSError as error:
            done = sum(self.record.is_done(item, wanted) for item in self.items)
            raise UsageError(
                f'{self.out} cannot be written to ({error.strerror}); {done} of {len(self.items)} files '
                f'are done, the same command goes on'
            ) from error
        done = [item for item in self.items if self.record.is_done(item, wanted)]
        print(f'{", ".join(wanted)} of {len(done)} files in {self.out}')
        if self.failed:
            more = (
                f'; {len(self.failed) - SHOWN} more, see {self.out / MANIFEST_NAME}' if len(self.failed) > SHOWN else ''
            )
            raise UsageError(
                f'{len(self.failed)} of {len(self.items)} files left out: '
                f'{"; ".join([*self.failed.values()][:SHOWN])}{more}'
            )
        files = (self.record.entries[str(item.name)]['outputs'] for item in done)
        return [self.out / name for kinds in files for kind in wanted for name in kinds[kind]]

    def _predict_all(self, todo: Sequence[Item]) -> None:
        with (
            WriteBehind() as behind,
            closing(self._sources(todo)) as sources,
            ProgressBar(sources, 'predicting', len(todo), 'file', delay=0, disable=not todo) as bar,
        ):
            for item, source in bar:
                self._predict(item, source, behind)

    def _sources(self, todo: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
        """What `_read` gives of each file that no other process does, and of those that one has not done in the end."""
        said = False
        while todo:
            with closing(prefetch(self._read(self._claimed(todo)))) as sources:
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

    def _read(self, items: Iterator[Item]) -> Iterator[tuple[Item, Any]]:
        """Each with its pixels (of other than RGB to look at only), an open raster, none of a video, or its error."""
        for item in items:
            try:
                with as_errors():
                    source = None if item.is_video else self._source(item.path)
            except Exception as error:  # of any type: it is told of this file
                source = error
            yield item, source

    def _source(self, path: Path) -> Any:
        source = open_georeferenced(path)
        if source is None and self.bands:
            return to_picture(path)
        if source is None:
            self._note_georeference(path)
            return to_rgb(path, self.options.bands, self.options.value_range, self._note)
        return source

    def _note(self, text: str) -> None:
        """Says what is odd, once, and of many the first."""
        if text not in self.noted and len(self.noted) < NOTES:
            print(printable(text if len(self.noted) < NOTES - 1 else f'{text}; more of this kind is not said'))
        self.noted[text] = None

    def _note_georeference(self, path: Path) -> None:
        """Says what is lost of pictures that have their place on the ground in a file beside them."""
        suffix = path.suffix.lower()
        names = [path.with_suffix(f'{suffix[:2]}{suffix[-1:]}w'), path.with_suffix('.wld'), Path(f'{path}w')]
        if beside := next((name for name in names if name.is_file()), None):
            self._note(
                f'{path}: its place on the ground, in {beside.name}, is not kept: gdal_translate {path.name} '
                f'{path.stem}.tif makes a GeoTIFF of both'
            )

    def _predict(self, item: Item, source: Any, behind: WriteBehind) -> None:
        if isinstance(source, Exception):
            self._fail(item, source)
        elif item.is_video:
            self._keep(item, lambda: self._video(item))
        elif not isinstance(source, np.ndarray):
            with source:
                self._keep(item, lambda: predict_geotiff(self.model, item, source, self.out, self.options, self._note))
        else:
            try:
                with as_errors():
                    found = self._found(item, source)
            except Exception as error:
                self._fail(item, error)
            else:
                behind.submit(self._keep, item, lambda: self._write(item, source, found))

    def _found(self, item: Item, image: np.ndarray) -> Prediction:
        options = self.options
        pixels, own = (item.path, options) if self.bands else (image, Options())
        values = dict(bands=own.bands, value_range=own.value_range)
        return predict(self.model, pixels, options.maps, **values, windows=options.windows, tell=self._note)

    def _video(self, item: Item) -> tuple[dict[str, list[str]], dict[str, Any]]:
        from mmseg_volo.inference.video import predict_video  # needs PyAV

        return predict_video(self.model, item, self.out, self.options)

    def _write(self, item: Item, image: np.ndarray, found: Prediction) -> tuple[dict[str, list[str]], dict[str, Any]]:
        kinds = [kind for kind in self.options.outputs if kind != 'areas']
        files, left_out = write_image(self.out, item.stem, image, found, self.options, kinds)
        return files, dict(pixels=pixels_per_class(found.mask, len(found.classes)).tolist(), left_out=left_out)

    def _keep(self, item: Item, results: Callable[[], tuple[dict[str, list[str]], dict[str, Any]]]) -> None:
        """Makes results and tells the record of them."""
        try:
            with as_errors():
                files, kept = results()
        except Exception as error:
            if getattr(error, 'errno', None) in STOPS:
                raise
            self._fail(item, error)
        else:
            if note := kept.pop('note', None):
                print(printable(f'{item.path}: {note}'))
            self.record.add(item, dict(outputs={'areas': [], **files}, **kept))
            self._fail_partly(item, kept)

    def _fail_partly(self, item: Item, entry: Mapping[str, Any]) -> None:
        """What is missing of the results of a file."""
        left_out = [why for kind, why in entry.get('left_out', {}).items() if kind in self.options.outputs]
        if left_out:
            self.failed[item] = f'{item.path}: {"; ".join(left_out)}'

    def _fail(self, item: Item, error: Exception) -> None:
        """Leaves a file out, whatever the error: the next one may do.

        Raises:
            Exception: the error, if the device is lost, so that no other file would do.
        """
        text, kept = ' '.join(message_of(error).split()), {}
        if isinstance(error, MemoryError | RuntimeError) and 'memory' in f'{text}{type(error).__name__}'.lower():
            text = 'not enough memory: see --windows, --device'
        elif not isinstance(error, OSError | ValueError):
            text = f'{type(error).__name__}: {text}'
            if type(error).__module__.split('.')[0] not in FILES:
                if not self._device_works():
                    raise error
                kept['traceback'] = ''.join(traceback.format_exception(error))  # it may be a fault of ours
        self.failed[item] = text if str(item.path) in text else f'{item.path}: {text}'
        self.record.add(item, dict(error=self.failed[item], **kept))

    def _device_works(self) -> bool:
        """A GPU that is lost fails at everything that follows."""
        try:
            torch.ones(1, device=next(self.model.parameters()).device).sum().item()
        except Exception:
            return False
        return True
