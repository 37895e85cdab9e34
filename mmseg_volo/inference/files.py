"""Predict many files: skip those that are done, continue after failures, and report the failures at the end."""

from __future__ import annotations

import errno
import importlib.util
import os
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.models import BaseSegmentor
from numpy.typing import NDArray
from torch import nn

from mmseg_volo.errors import UsageError, as_errors, message_of, printable
from mmseg_volo.inference.api import Prediction, predict
from mmseg_volo.inference.areas import pixels_per_class
from mmseg_volo.inference.geotiff import predict_geotiff
from mmseg_volo.inference.manifest import MANIFEST_NAME, Manifest, fingerprint
from mmseg_volo.inference.options import Options
from mmseg_volo.inference.outputs import write_image
from mmseg_volo.inference.polygons import need_rasterio
from mmseg_volo.inference.segment import loading_of
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

DECODERS = ('rasterio', 'av', 'cv2', 'PIL')  # packages whose errors, of any type, are caused by the file
STOPS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # the next file would fail too
PAUSE = 0.5  # seconds between two checks of what other processes have done
NOTES = 5  # warnings about unusual images that are printed
SHOWN = 20  # failures in the message; all are in the manifest
Results = tuple[dict[str, list[str]], dict[str, Any]]  # paths below OUT by kind, and further facts for the manifest


def predict_files(
    model: nn.Module, inputs: Sequence[str], out: str | Path, options: Options | None = None, overwrite: bool = False
) -> list[Path]:
    """Write `OUT/KIND/NAME.SUFFIX` for each kind of output and each image, video and GeoTIFF.

    A file that cannot be read, predicted or written is reported and skipped; the others are still predicted. Complete
    results of an earlier call with the same model and options are kept, unless the input has changed since. Several
    processes may fill one folder with the same model and options: they share the files that more than one of them was
    given.

    Args:
        model: from `mmseg_volo.load`.
        inputs: see `find_inputs`.
        out: folder, created if necessary.
        options: `Options()` if None.
        overwrite: replace existing results.

    Returns:
        The result files, written now or before; a folder where a video has one file per frame.

    Raises:
        UsageError: there is nothing to predict, or it cannot be predicted, raised before anything is written; or some
            files failed, raised after the others were written.
        Exception: the device failed, so that no other file could be predicted.
    """
    segmentor: BaseSegmentor = unwrap_segmentor(model)
    options, out = options or Options(), Path(os.path.expanduser(out))
    left = FileCounts('left alone')
    items = find_inputs(inputs, out, left, arrays=loading_of(segmentor)['type'] in MULTI_BAND_STEPS)
    if 'polygons' in options.outputs:
        need_rasterio('polygons')
    if importlib.util.find_spec('rasterio') is None:
        tiffs = (item.path for item in items if item.path.suffix.lower() in TIFFS)
        if lost := next((path for path in tiffs if loses_georeference(path)), None):
            raise UsageError(f'{lost} is a GeoTIFF: keeping its georeference needs rasterio, pip install rasterio')
    run = _Run(segmentor, items, out, options, overwrite)
    try:
        _print_kinds(items, left)
        return run.go()
    finally:
        run.manifest.close()


def _print_kinds(items: Sequence[Item], left: FileCounts) -> None:
    """Print which kinds of files are predicted and which are left alone, if there are several."""
    taken = FileCounts('taken')
    for item in items:
        taken.add(item.path)
    if left or len(taken) > 1:
        print(taken)
    if left:
        print(left)


class _Run:
    """One call of `predict_files`."""

    def __init__(self, model: BaseSegmentor, items: Sequence[Item], out: Path, options: Options, overwrite: bool):
        self.model, self.items, self.out, self.options = model, items, out, options
        depends_on = dict(model=fingerprint(model), **prediction_settings(model), **asdict(options))
        del depends_on['outputs']  # the manifest lists them for each file
        try:
            self.manifest = Manifest(out, depends_on, items, overwrite)
        except OSError as error:
            raise UsageError(f'{out} cannot be written to ({error.strerror}): give another folder to --out') from error
        self.failed: dict[Item, str] = {}
        self.started: set[Item] = set()  # in this process
        self.noted: set[str] = set()
        self.multi_band = loading_of(model)['type'] in MULTI_BAND_STEPS

    def go(self) -> list[Path]:
        """Predict the files that are not done, and return all result files."""
        wanted = self.options.outputs
        todo = [item for item in self.items if not self.manifest.is_done(item, wanted)]
        for item in self.items:
            if item not in todo:
                self._fail_partly(item, self.manifest.entries[str(item.name)])
        if len(todo) < len(self.items):
            print(f'{len(self.items) - len(todo)} of {len(self.items)} are done already; --overwrite replaces them')
        try:
            try:
                self._predict_all(todo)
            finally:
                if 'areas' in wanted:
                    self.manifest.write_areas(self.model.dataset_meta['classes'])
        except BrokenPipeError:  # the reader of our output is gone
            raise
        except OSError as error:
            count = sum(self.manifest.is_done(item, wanted) for item in self.items)
            raise UsageError(
                f'{self.out} cannot be written to ({error.strerror}); {count} of {len(self.items)} files '
                f'are done, and the same command continues'
            ) from error
        done = [item for item in self.items if self.manifest.is_done(item, wanted)]
        print(f'{", ".join(wanted)} of {len(done)} files in {self.out}')
        if self.failed:
            count, reasons = len(self.failed), '; '.join([*self.failed.values()][:SHOWN])
            more = f'; {count - SHOWN} more, see {self.out / MANIFEST_NAME}' if count > SHOWN else ''
            raise UsageError(f'{count} of {len(self.items)} files left out: {reasons}{more}')
        files = (self.manifest.entries[str(item.name)]['outputs'] for item in done)
        return [self.out / name for kinds in files for kind in wanted for name in kinds[kind]]

    def _predict_all(self, todo: Sequence[Item]) -> None:
        with (
            WriteBehind() as behind,
            closing(self._sources(todo)) as sources,
            ProgressBar(sources, 'predicting', len(todo), 'file', delay=0, disable=not todo) as bar,
        ):
            for item, source in bar:
                self._predict(item, source, behind)

    def _sources(self, todo: Sequence[Item]) -> Generator[tuple[Item, Any], None, None]:
        """Yield what `_read` does of each file, except of those that another process predicts in the meantime."""
        waiting = False
        while todo:
            with closing(prefetch(self._read(self._claimed(todo)))) as sources:
                yield from sources
            self.manifest.refresh()
            self.failed |= {item: why for item in todo if (why := self.manifest.failure(item))}
            wanted, settled = self.options.outputs, self.started | self.failed.keys()
            todo = [item for item in todo if item not in settled and not self.manifest.is_done(item, wanted)]
            if todo:
                if not waiting:
                    print(f'waiting for other processes, which are predicting {len(todo)} of the files')
                waiting = True
                time.sleep(PAUSE)

    def _claimed(self, items: Sequence[Item]) -> Iterator[Item]:
        for item in self.manifest.claim(items, self.options.outputs):
            self.started.add(item)
            yield item

    def _read(self, items: Iterator[Item]) -> Iterator[tuple[Item, Any]]:
        """Yield each item with its RGB pixels, an open raster, None for a video, or the error of reading it."""
        for item in items:
            try:
                with as_errors():
                    source = None if item.is_video else self._source(item.path)
            except Exception as error:  # of any type: it is reported for this file
                source = error
            yield item, source

    def _source(self, path: Path) -> Any:
        source = open_georeferenced(path)
        if source is None and self.multi_band:
            return to_picture(path)  # only for the overlay
        if source is None:
            self._note_georeference(path)
            return to_rgb(path, self.options.bands, self.options.value_range, self._note)
        return source

    def _note(self, text: str) -> None:
        """Print a warning once, and only the first ones of many."""
        if text not in self.noted and len(self.noted) < NOTES:
            print(printable(text if len(self.noted) < NOTES - 1 else f'{text}; further warnings are not shown'))
        self.noted.add(text)

    def _note_georeference(self, path: Path) -> None:
        """Warn that the georeference of a picture with a world file is not kept."""
        suffix = path.suffix.lower()
        names = [path.with_suffix(f'{suffix[:2]}{suffix[-1:]}w'), path.with_suffix('.wld'), Path(f'{path}w')]
        if beside := next((name for name in names if name.is_file()), None):
            self._note(
                f'{path}: its georeference, in {beside.name}, is not kept: gdal_translate {path.name} '
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
                    prediction = self._predict_image(item, source)
            except Exception as error:
                self._fail(item, error)
            else:
                behind.submit(self._keep, item, lambda: self._write(item, source, prediction))

    def _predict_image(self, item: Item, image: NDArray[np.uint8]) -> Prediction:
        options = self.options
        how: dict[str, Any] = dict(maps=options.maps, windows=options.windows, tell=self._note)
        if self.multi_band:
            return predict(self.model, item.path, bands=options.bands, value_range=options.value_range, **how)
        return predict(self.model, image, **how)  # bands and value range were applied when it was read

    def _video(self, item: Item) -> Results:
        from mmseg_volo.inference.video import predict_video  # needs PyAV

        return predict_video(self.model, item, self.out, self.options)

    def _write(self, item: Item, image: NDArray[np.uint8], prediction: Prediction) -> Results:
        kinds = [kind for kind in self.options.outputs if kind != 'areas']
        files, left_out = write_image(self.out, item.stem, image, prediction, self.options, kinds)
        counts = pixels_per_class(prediction.mask, len(prediction.classes))
        return files, dict(pixels=counts.tolist(), left_out=left_out)

    def _keep(self, item: Item, write: Callable[[], Results]) -> None:
        """Write results and add them to the manifest."""
        try:
            with as_errors():
                files, facts = write()
        except Exception as error:
            if getattr(error, 'errno', None) in STOPS:
                raise
            self._fail(item, error)
        else:
            if note := facts.pop('note', None):
                print(printable(f'{item.path}: {note}'))
            self.manifest.add(item, dict(outputs={'areas': [], **files}, **facts))
            self._fail_partly(item, facts)

    def _fail_partly(self, item: Item, entry: Mapping[str, Any]) -> None:
        """Report the outputs of a file that could not be written."""
        left_out = [why for kind, why in entry.get('left_out', {}).items() if kind in self.options.outputs]
        if left_out:
            self.failed[item] = f'{item.path}: {"; ".join(left_out)}'

    def _fail(self, item: Item, error: Exception) -> None:
        """Skip a file and add the error to the manifest.

        Raises:
            Exception: the error, if the device failed, so that every other file would fail too.
        """
        text, facts = ' '.join(message_of(error).split()), {}
        if isinstance(error, MemoryError | RuntimeError) and 'memory' in f'{text}{type(error).__name__}'.lower():
            text = 'not enough memory: see --window-size, --device'
        elif not isinstance(error, OSError | ValueError):
            text = f'{type(error).__name__}: {text}'
            if type(error).__module__.split('.')[0] not in DECODERS:
                if not self._device_works():
                    raise error
                facts['traceback'] = ''.join(traceback.format_exception(error))  # it may be our own bug
        self.failed[item] = text if str(item.path) in text else f'{item.path}: {text}'
        self.manifest.add(item, dict(error=self.failed[item], **facts))

    def _device_works(self) -> bool:
        """Return whether the device still computes: a GPU that has failed fails at everything that follows."""
        try:
            torch.ones(1, device=next(self.model.parameters()).device).sum().item()
        except Exception:
            return False
        return True
