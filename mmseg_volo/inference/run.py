"""Files in, results out: what is done is left alone, what fails is told at the end, the others go on."""

from __future__ import annotations

import errno
import importlib.util
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmseg_volo.apis import Prediction, predict
from mmseg_volo.errors import UsageError, sentence
from mmseg_volo.files import write_whole
from mmseg_volo.folders.bands import as_picture
from mmseg_volo.images import as_rgb
from mmseg_volo.inference.areas import count, table
from mmseg_volo.inference.geotiff import predict_geotiff
from mmseg_volo.inference.images import write_image
from mmseg_volo.inference.inputs import TIFFS, Item, find_inputs
from mmseg_volo.inference.options import Options, in_windows
from mmseg_volo.inference.polygons import need_rasterio
from mmseg_volo.inference.rasters import loses_georeference, open_raster
from mmseg_volo.inference.record import NAME, Record, fingerprint
from mmseg_volo.inference.threads import Behind, ahead
from mmseg_volo.progress import Bar

FILES = ('rasterio', 'av', 'cv2', 'PIL')  # packages whose errors, whatever their type, come of the file
STOPS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # the next file would not fare better
SHOWN = 20  # failures in the message; all are in the record


def predict_files(
    model: nn.Module, inputs: Sequence[str], out: str | Path, options: Options | None = None, overwrite: bool = False
) -> list[Path]:
    """Writes `OUT/KIND/NAME.SUFFIX` for each kind of output and each image, video and GeoTIFF.

    A file that cannot be read, predicted or written is reported and left out; the others are done all the same. What an
    earlier call with the same model and options wrote completely is left as it is, while the input does not change.

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
    options, out = options or Options(), Path(out).expanduser()
    items = find_inputs(inputs, out)
    if 'polygons' in options.outputs:
        need_rasterio('polygons')
    if importlib.util.find_spec('rasterio') is None:
        tiffs = (item.path for item in items if item.path.suffix.lower() in TIFFS)
        if lost := next((path for path in tiffs if loses_georeference(path)), None):
            raise UsageError(f'{lost} is a GeoTIFF: keeping its georeference needs rasterio, pip install rasterio')
    with in_windows(model, options.windows):
        return _Run(model, items, out, options, overwrite).go()


class _Run:
    def __init__(self, model: nn.Module, items: Sequence[Item], out: Path, options: Options, overwrite: bool):
        self.model, self.items, self.out, self.options = model, items, out, options
        settings = dict(model=fingerprint(model), **asdict(options))
        del settings['outputs']  # each file knows which it has
        try:
            self.record = Record(out, settings, items if overwrite else None)
        except OSError as error:
            raise UsageError(f'{out} cannot be written to ({error.strerror}): give another folder to --out') from error
        self.failed: list[str] = []
        self.bands = model.cfg.test_pipeline[0]['type'] == 'LoadBands'  # of other images than RGB

    def go(self) -> list[Path]:
        wanted = self.options.outputs
        todo = [item for item in self.items if not self.record.is_done(item, wanted)]
        for item in self.items:
            if item not in todo:
                self._tell(item, self.record.entries[str(item.name)])
        if len(todo) < len(self.items):
            print(f'{len(self.items) - len(todo)} of {len(self.items)} are done already; --overwrite does them anew')
        try:
            try:
                self._predict_all(todo)
            finally:
                self._write_areas()
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
            raise UsageError(
                f'{len(self.failed)} of {len(self.items)} files left out: {"; ".join(self.failed[:SHOWN])}{more}'
            )
        files = (self.record.entries[str(item.name)]['outputs'] for item in done)
        return [self.out / name for kinds in files for kind in wanted for name in kinds[kind]]

    def _predict_all(self, todo: Sequence[Item]) -> None:
        with (
            Behind() as behind,
            closing(ahead(_read(todo, self.bands))) as sources,
            Bar(sources, 'predicting', len(todo), 'file', delay=0, disable=not todo) as bar,
        ):
            for item, source in bar:
                self._predict(item, source, behind)

    def _write_areas(self) -> None:
        if 'areas' in self.options.outputs:
            entries = sorted((e for e in self.record.entries.values() if 'pixels' in e), key=lambda e: e['file'])
            write_whole(self.out / 'areas.csv', table(entries, self.model.dataset_meta['classes']))

    def _predict(self, item: Item, source: Any, behind: Behind) -> None:
        if isinstance(source, Exception):
            self._fail(item, source)
        elif item.is_video:
            self._keep(item, lambda: self._video(item))
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

    def _video(self, item: Item) -> tuple[dict[str, list[str]], dict[str, Any]]:
        from mmseg_volo.inference.video import predict_video  # needs PyAV

        return predict_video(self.model, item, self.out, self.options)

    def _write(self, item: Item, image: np.ndarray, found: Prediction) -> tuple[dict[str, list[str]], dict[str, Any]]:
        kinds = [kind for kind in self.options.outputs if kind != 'areas']
        files, left_out = write_image(self.out, item.stem, image, found, self.options, kinds)
        return files, dict(pixels=count(found.mask, len(found.classes)).tolist(), left_out=left_out)

    def _keep(self, item: Item, results: Callable[[], tuple[dict[str, list[str]], dict[str, Any]]]) -> None:
        """Makes results and tells the record of them."""
        try:
            files, kept = results()
        except Exception as error:
            if getattr(error, 'errno', None) in STOPS:
                raise
            self._fail(item, error)
        else:
            if note := kept.pop('note', None):
                print(f'{item.path}: {note}')
            self.record.add(item, dict(outputs={'areas': [], **files}, **kept))
            self._tell(item, kept)

    def _tell(self, item: Item, entry: Mapping[str, Any]) -> None:
        """What is missing of the results of a file."""
        left_out = [why for kind, why in entry.get('left_out', {}).items() if kind in self.options.outputs]
        if left_out:
            self.failed.append(f'{item.path}: {"; ".join(left_out)}')

    def _fail(self, item: Item, error: Exception) -> None:
        """Leaves a file out, whatever the error: the next one may do.

        Raises:
            Exception: the error, if the device is lost, so that no other file would do.
        """
        text, kept = ' '.join(sentence(error).split()), {}
        if isinstance(error, MemoryError | RuntimeError) and 'memory' in f'{text}{type(error).__name__}'.lower():
            text = 'not enough memory: see --windows, --device'
        elif not isinstance(error, OSError | ValueError):
            text = f'{type(error).__name__}: {text}'
            if type(error).__module__.split('.')[0] not in FILES:
                if not self._device_works():
                    raise error
                kept['traceback'] = ''.join(traceback.format_exception(error))  # it may be a fault of ours
        self.failed.append(text if str(item.path) in text else f'{item.path}: {text}')
        self.record.add(item, dict(error=self.failed[-1], **kept))

    def _device_works(self) -> bool:
        """A GPU that is lost fails at everything that follows."""
        try:
            torch.ones(1, device=next(self.model.parameters()).device).sum().item()
        except Exception:
            return False
        return True


def _read(items: Sequence[Item], bands: bool) -> Iterator[tuple[Item, Any]]:
    """Each with its pixels (with `bands` to look at only), an open raster, none of a video, or why it is unreadable."""
    for item in items:
        source = None
        try:
            if item.path.suffix.lower() in TIFFS:
                source = open_raster(item.path)
            if source is None and not item.is_video:
                source = as_picture(item.path) if bands else as_rgb(item.path)
        except Exception as error:  # of any type: it is told of this file
            source = error
        yield item, source
