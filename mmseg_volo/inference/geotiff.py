"""Predicts GeoTIFFs of any size in bounded memory: reads, segments and writes them by windows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.api import Prediction
from mmseg_volo.inference.areas import PixelAreas, pixels_per_class
from mmseg_volo.inference.georeference import Ground
from mmseg_volo.inference.options import OUTPUT_TO_MAP, Options
from mmseg_volo.inference.outputs import write_image
from mmseg_volo.inference.polygons import geojson
from mmseg_volo.inference.raster_io import CACHE, RasterFile
from mmseg_volo.inference.segment import device_of, loading_of, mask_type, segment
from mmseg_volo.inference.sources import Item
from mmseg_volo.io.raster_pixels import RasterPixels
from mmseg_volo.io.raster_reader import forget_error
from mmseg_volo.io.value_range import LOGGER, Tell
from mmseg_volo.utils.files import AtomicFile
from mmseg_volo.utils.progress import ProgressBar
from mmseg_volo.visualization import colour_mask

PREVIEW = 4096  # longer side of the overlay


def predict_geotiff(
    model: nn.Module, item: Item, raster: Any, out: Path, options: Options, tell: Tell = LOGGER.warning
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Write the results for a raster, as GeoTIFFs with its size, georeference, blocks and nodata areas.

    Overlays are JPEG files of at most PREVIEW pixels a side. Memory is bounded except for polygons, which are held
    until the last one is complete.

    Args:
        raster: from `open_georeferenced`; the caller closes it.
        tell: receives a sentence about each oddity that is accepted.

    Returns:
        The files' paths below OUT by kind, and the entry for the manifest: `pixels` and `square_metres` of each class,
        in `left_out` what is missing of a kind, and a `note` for the user.

    Raises:
        UsageError, OSError: the raster cannot be read or predicted, or a file cannot be written.
    """
    import rasterio

    ground = Ground(raster.transform if _has_transform(raster) else None, raster.crs)
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE << 20), torch.inference_mode():
            values = options.bands, options.value_range
            pixels = RasterPixels(raster, loading_of(model), *values, device_of(model), item.path, tell)
            pixels.check()
            writer = _Writer(model, item, pixels, out, options, ground)
            with (
                writer,
                ProgressBar(None, f'predicting {item.path.name}', raster.height, 'row', leave=False) as bar,
            ):
                for rows, maps in segment(model, pixels, options.maps, options.windows, tell):
                    writer.add(rows, {name: values.cpu().numpy() for name, values in maps.items()})
                    bar.update(rows.stop - rows.start)
                writer.finish()
    except Exception as error:
        if type(error).__module__.partition('.')[0] != 'rasterio':  # GDAL's own errors are not RasterioErrors
            raise
        forget_error(raster)
        raise UsageError(f'{item.path} cannot be read or written: {error.__cause__ or error}') from error
    return writer.files, writer.entry()


def _has_transform(raster: Any) -> bool:
    import rasterio

    return bool(raster.transform != rasterio.Affine.identity())


class _Writer:
    """Writes the files of one raster."""

    def __init__(self, model: nn.Module, item: Item, pixels: RasterPixels, out: Path, options: Options, ground: Ground):
        self.item, self.pixels, self.out, self.options, self.ground = item, pixels, out, options, ground
        self.raster = raster = pixels.raster
        meta = cast(dict[str, Any], model.dataset_meta)  # mmseg's models have it, a Module's attributes are Tensors
        self.classes: Sequence[str] = meta['classes']
        self.palette: Sequence[Sequence[int]] = meta['palette']
        channels = getattr(model, 'out_channels', len(self.classes))
        self.names = self.classes if channels == len(self.classes) else self.classes[-1:]
        self.counts = np.zeros(len(self.classes), np.int64)
        self.areas = PixelAreas(ground, raster.height, raster.width) if ground.ellipsoid else None
        self.square_metres = np.zeros(len(self.classes))
        self.left_out: dict[str, str] = {}
        self.files: dict[str, list[str]] = {}
        self.masked = pixels.masked
        self.dtype, self.nodata = mask_type(len(self.classes), self.masked)
        self.step = step = -(-max(raster.width, raster.height) // PREVIEW)
        self.first = [
            min(step // 2, n - 1) for n in (raster.height, raster.width)
        ]  # row and column where the preview starts
        size = [len(range(a, n, step)) for a, n in zip(self.first, (raster.height, raster.width), strict=True)]
        # allocated at once: rows kept one by one between short-lived arrays would fragment the memory
        self.small = np.empty(size, self.dtype)
        self.small_image = np.empty((3, *size), np.uint8)
        self.shapes: RasterFile | None = None
        self._open: dict[str, RasterFile] = {}
        self._stack = ExitStack()

    def __enter__(self) -> None:
        nodata = self.nodata if self.masked else None
        nan = float('nan') if self.masked else None
        kinds: dict[str, tuple[int, str, float | None, Sequence[str], Sequence[Sequence[int]]]] = {
            'masks': (1, self.dtype, nodata, ['class'], self.palette),
            'colours': (3, 'uint8', None, ['red', 'green', 'blue'], ()),
            'confidence': (1, 'float32', nan, ['confidence'], ()),
            'probabilities': (len(self.names), 'float32', nan, self.names, ()),
        }
        wanted = self.options.outputs
        with ExitStack() as stack:
            for kind, layout in kinds.items():
                if kind in wanted:
                    name = Path(kind) / self.item.stem.parent / f'{self.item.stem.name}.tif'
                    self.files[kind] = [str(name)]
                    self._open[kind] = stack.enter_context(RasterFile(self.out / name, self.raster, *layout))
            self.shapes = self._open.get('masks')
            if 'polygons' in wanted and self.shapes is None:  # they are made from the finished mask
                self.shapes = _Temporary(self.out / 'polygons' / self.item.stem, self.raster, *kinds['masks'])
                stack.enter_context(self.shapes)
            self._stack = stack.pop_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, rows: slice, maps: dict[str, NDArray[Any]]) -> None:
        """Append the maps of the next rows."""
        mask = maps['pred_sem_seg'].astype(self.dtype)
        valid = None
        if self.masked:
            window = ((rows.start, rows.stop), (0, self.raster.width))
            valid = self.pixels.valid(window)[None]
            mask[~valid] = self.nodata
        self.counts += pixels_per_class(mask, len(self.classes))
        if self.areas:
            self.square_metres += self.areas.sums(mask[0], rows.start, len(self.classes))
        for kind, file in self._open.items():
            if kind == 'masks':
                file.write(mask)
            elif kind == 'colours':
                file.write(colour_mask(mask[0], self.palette).transpose(2, 0, 1))
            else:
                values = maps[OUTPUT_TO_MAP[kind]].astype(np.float32)
                file.write(values if valid is None else np.where(valid, values, np.float32('nan')))
        if self.shapes is not None and self.shapes not in self._open.values():
            self.shapes.write(mask)
        if 'overlays' in self.options.outputs:
            top, left = self.first
            for i in range((top - rows.start) % self.step, mask.shape[1], self.step):
                y = rows.start + i
                row = self.pixels.picture(((y, y + 1), (0, self.raster.width)))
                self.small[(y - top) // self.step] = mask[0, i, left :: self.step]
                self.small_image[:, (y - top) // self.step] = row[:, 0, left :: self.step]

    def finish(self) -> None:
        """Write what needs the whole mask: the overlay and the polygons."""
        import rasterio

        if 'overlays' in self.options.outputs:
            image = np.ascontiguousarray(self.small_image.transpose(1, 2, 0))
            small = Prediction(self.small, self.classes, self.palette)
            files, left_out = write_image(self.out, self.item.stem, image, small, self.options, ['overlays'])
            self.left_out |= left_out
            self.files |= files
        if 'polygons' in self.options.outputs:
            name = Path('polygons') / self.item.stem.parent / f'{self.item.stem.name}.geojson'
            path, nodata = self.out / name, self.nodata if self.masked else None
            path.parent.mkdir(parents=True, exist_ok=True)
            lost: list[str] = []
            assert self.shapes is not None  # opened for polygons
            with (
                AtomicFile(path) as temporary,
                rasterio.open(self.shapes.finish(), driver='GTiff') as mask,
                temporary.open('wb') as file,
            ):
                file.writelines(geojson(rasterio.band(mask, 1), self.classes, self.ground, nodata, lost))
            self.files['polygons'] = [str(name)]
            if lost:
                self.left_out['polygons'] = lost[0]

    def entry(self) -> dict[str, Any]:
        """Return the raster's entry in the manifest."""
        entry: dict[str, Any] = dict(pixels=self.counts.tolist(), left_out=self.left_out)
        note = ''
        if self.areas:
            entry['square_metres'] = self.square_metres.tolist()
            if self.areas.missing:
                note = f'{self.areas.missing} pixels lie off the ground and count as 0 square metres'
        else:
            note = 'square metres are left out, as no transform and CRS say where on the ground its pixels lie'
        return {**entry, 'note': note} if note and 'areas' in self.options.outputs else entry


class _Temporary(RasterFile):
    """Is deleted in the end."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        self._new.close()
