"""Predict videos: decode, predict and encode at the same time, with a few frames in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from mmseg.models import BaseSegmentor
from numpy.typing import NDArray

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.api import Prediction, predict
from mmseg_volo.inference.areas import pixels_per_class, table
from mmseg_volo.inference.options import Options
from mmseg_volo.inference.outputs import confidence_levels, write_image
from mmseg_volo.inference.sources import Item
from mmseg_volo.utils.files import AtomicFile, write_whole
from mmseg_volo.utils.parallel import WriteBehind, prefetch
from mmseg_volo.utils.progress import ProgressBar
from mmseg_volo.visualization import colour_mask, legend, overlay

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)  # not caused by the video
LEGEND = 0.75  # opacity
# FFmpeg's names of formats whose files contain the video themselves; playlists would open other files
FORMATS = 'mov,matroska,avi,flv,live_flv,mpeg,mpegts,mpegvideo,m4v,asf,asf_o,mxf,ogg,dv,gxf,nut,ivf,obu,h261,h263,h264,'
FORMATS += 'hevc,vvc,vc1,vc1test,mjpeg,gif,rm,wtv,pva,nsv,swf,yuv4mpegpipe,cavsvideo,dirac,dnxhd'
STATED = ('mov', 'matroska', 'avi', 'flv', 'asf', 'mxf')  # formats whose header states the duration
SPARE = (5, 0.01)  # frames, and share of the duration, that may be missing at the end
GREY = ('.mkv', 'ffv1')  # suffix and codec of lossless masks


def predict_video(
    model: BaseSegmentor, item: Item, out: Path, options: Options
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Write the results of a video: videos of its size, timestamps and rate, or one file per frame.

    Masks (class indices) and confidence are lossless grey FFV1 in .mkv, or PNG files; colours and overlays are H.264 in
    .mp4. Frames are rotated as the file states. Sound is dropped.

    Returns:
        The paths below OUT by kind, and facts for the manifest: `pixels` of each class over all frames, and `left_out`,
        kind -> reason, for kinds whose file format cannot hold the frames.

    Raises:
        UsageError, OSError: it cannot be read, predicted or written.
    """
    try:
        with _opened(item.path) as source:
            if not source.streams.video:
                raise UsageError(f'{item.path} contains no video')
            stream = source.streams.video[0]
            stream.thread_type = 'AUTO'
            with (
                _Writer(model, item, stream, out, options) as writer,
                WriteBehind() as behind,
                closing(prefetch(_frames(item.path, source, stream))) as frames,  # ends before the file is closed
                ProgressBar(frames, f'predicting {item.path.name}', stream.frames or None, 'frame', leave=False) as bar,
            ):
                for image, timestamp in bar:
                    behind.submit(writer.add, image, timestamp, predict(model, image, options.maps))
    except av.FFmpegError as error:
        raise UsageError(f'{item.path} is not a readable video, or ends too early: {error.strerror}') from error
    if not writer.number:
        raise UsageError(f'{item.path} contains no frame')
    left_out = {kind: video.problem for kind, video in writer.videos.items() if video.problem}
    files = {kind: names for kind, names in writer.files.items() if kind not in left_out}
    return files, dict(pixels=writer.counts.tolist(), left_out=left_out)


def _url(path: Path) -> str:
    """Return a URL for FFmpeg, which would take the part of a path before a colon as a protocol."""
    return f'file:{os.path.abspath(path)}'


def _opened(path: Path) -> Any:
    try:
        return av.open(_url(path), options={'protocol_whitelist': 'file', 'format_whitelist': FORMATS})
    except av.ArgumentError as error:  # FFmpeg's error for other formats
        message = f'{path} is a playlist, or a video of an unsupported format: give the videos themselves'
        raise UsageError(message) from error


def _frames(path: Path, source: Any, stream: Any) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Yield RGB frames and their timestamps, in the stream's time base.

    Raises:
        UsageError: there are clearly fewer frames than the file states, which FFmpeg ignores in most formats.
    """
    step = round(1 / (_rate(stream) * stream.time_base))
    end = 0
    for i, frame in enumerate(source.decode(stream)):
        pixels = np.rot90(frame.to_ndarray(format='rgb24'), frame.rotation // 90)
        timestamp = i * step if frame.pts is None else frame.pts
        end = max(end, timestamp + (frame.duration or step))
        yield np.ascontiguousarray(pixels), timestamp
    stated, start = _stated_duration(source, stream)
    actual = float((end - start) * stream.time_base)
    if stated - actual > max(float(SPARE[0] / _rate(stream)), SPARE[1] * stated):
        raise UsageError(
            f'{path} ends too early: its header states {stated:.2f} s, but it contains {actual:.2f} s: '
            f'get the file again'
        )


def _stated_duration(source: Any, stream: Any) -> tuple[float, int]:
    """Return the duration in seconds that a file states for its video, or 0, and its start in the stream's time base.

    Where the file does not state it, FFmpeg's estimate is not reliable; nor is the duration of a file with sound.
    """
    names = source.format.name.split(',')
    if not set(names) & set(STATED):
        return 0.0, 0
    if stream.duration:
        frames = (
            stream.frames / _rate(stream) if 'avi' in names else 0
        )  # FFmpeg shortens the duration of a truncated AVI
        return float(max(stream.duration * stream.time_base, frames)), stream.start_time or 0
    with suppress(KeyError, ValueError):  # Matroska: starts at 0
        hours, minutes, seconds = map(float, stream.metadata['DURATION'].split(':'))
        return 3600 * hours + 60 * minutes + seconds, 0
    alone = len(source.streams) == 1 and source.duration
    return source.duration / av.time_base if alone else 0.0, 0


def _rate(stream: Any) -> Fraction:
    rate: Fraction = stream.average_rate or stream.guessed_rate or Fraction(25)
    return rate


class _Format(NamedTuple):
    """How a kind of output is stored as a video: pixel formats as FFmpeg names them."""

    suffix: str
    codec: str
    stored: str  # pixel format in the file
    given: str  # pixel format of the frames to write


class _Video:
    """Write a video frame by frame, completely or not at all; `problem` is the error of the codec, if any."""

    def __init__(self, path: Path, format_: _Format, like: Any):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.format, self.like = path, format_, like
        self.problem = ''
        self.stream: Any = None  # PyAV's, from the first frame on
        self._new = AtomicFile(path)
        try:
            with self._handle_errors():
                self.file = av.open(_url(self._new.scratch), 'w')
            if self.problem:
                raise UsageError(self.problem)
        except BaseException:
            self._new.close()
            raise

    @contextmanager
    def _handle_errors(self) -> Iterator[None]:
        """Raise OSError for errors of the disk; keep others, which are the codec's, in `problem`."""
        try:
            yield
        except av.FFmpegError as error:
            if error.errno in DISK_ERRORS:
                raise OSError(error.errno, os.strerror(error.errno), str(self.path)) from error
            codec = self.format.codec
            what = f'{self.stream.width}x{self.stream.height} pixels by {codec}' if self.stream else codec
            self.problem = f'{self.path} is left out: {what}: {error.strerror}'

    def write(self, pixels: NDArray[Any], timestamp: int) -> None:
        """Append a frame (H, W) or (H, W, 3), as the format requires, at a time in the source's time base."""
        if not self.problem:
            with self._handle_errors():
                self._write(pixels, timestamp)

    def _write(self, pixels: NDArray[Any], timestamp: int) -> None:
        height, width = pixels.shape[:2]
        if self.stream is None:
            stream = self.file.add_stream(self.format.codec, rate=_rate(self.like))
            stream.width, stream.height = width, height
            stored = self.format.stored
            # yuv420p subsamples colours by 2, which needs an even size
            stream.pix_fmt = 'yuv444p' if stored == 'yuv420p' and (width % 2 or height % 2) else stored
            stream.codec_context.time_base = self.like.time_base
            if self.like.sample_aspect_ratio:
                stream.codec_context.sample_aspect_ratio = self.like.sample_aspect_ratio
            if self.format.codec == 'libx264':
                stream.options = {'crf': '18', 'preset': 'veryfast'}
            self.stream = stream
        if (self.stream.width, self.stream.height) != (width, height):
            raise UsageError(
                f'its frames change size, from {self.stream.width}x{self.stream.height} to {width}x{height}'
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=self.format.given)
        frame.pts, frame.time_base = timestamp, self.like.time_base
        self.file.mux(self.stream.encode(frame))

    def __enter__(self) -> _Video:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with self._handle_errors():
                if kind is None and self.stream is not None and not self.problem:
                    self.file.mux(self.stream.encode())
            with self._handle_errors():
                self.file.close()
            if kind is None and not self.problem:
                self._new.keep()
        finally:
            self._new.close()


class _Writer:
    """Write the results of one video."""

    def __init__(self, model: BaseSegmentor, item: Item, like: Any, out: Path, options: Options):
        self.out, self.item, self.options, self.like = out, item, options, like
        self.classes, self.palette = (model.dataset_meta[name] for name in ('classes', 'palette'))
        self.counts, self.number = np.zeros(len(self.classes), np.int64), 0
        self.files: dict[str, list[str]] = {}
        self._areas: list[NDArray[np.int64]] = []
        self.videos: dict[str, _Video] = {}
        self._stack = ExitStack()

    def __enter__(self) -> _Writer:
        h264 = _Format('.mp4', 'libx264' if 'libx264' in av.codecs_available else 'mpeg4', 'yuv420p', 'rgb24')
        formats = {'colours': h264, 'overlays': h264}
        if not self.options.frames:
            grey = 'gray' if len(self.classes) <= 256 else 'gray16le'
            formats |= {'masks': _Format(*GREY, grey, grey), 'confidence': _Format(*GREY, 'gray', 'gray')}
        with ExitStack() as stack:
            for kind in self.options.outputs:
                format_ = formats.get(kind)
                suffix = format_.suffix if format_ else '.csv' if kind == 'areas' else ''
                name = Path(kind) / self.item.stem.parent / f'{self.item.stem.name}{suffix}'
                self.files[kind] = [str(name)]
                if format_:
                    self.videos[kind] = stack.enter_context(_Video(self.out / name, format_, self.like))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, *error: Any) -> None:
        self._stack.__exit__(kind, *error)
        if kind is None and 'areas' in self.files:
            path = self.out / self.files['areas'][0]
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = (dict(frame=i + 1, pixels=pixels.tolist()) for i, pixels in enumerate(self._areas))
            write_whole(path, table(frames, self.classes, 'frame'))

    def add(self, image: NDArray[np.uint8], timestamp: int, prediction: Prediction) -> None:
        """Write the outputs of the next frame."""
        self.number += 1
        pixels = pixels_per_class(prediction.mask, len(self.classes))
        self.counts += pixels
        if 'areas' in self.files:
            self._areas.append(pixels)
        for kind, video in self.videos.items():
            video.write(self._picture(kind, image, prediction), timestamp)
        files = [kind for kind in self.files if kind not in self.videos and kind != 'areas']
        stem = self.item.stem / f'{self.number:06d}'
        if left_out := write_image(self.out, stem, image, prediction, self.options, files)[1]:
            raise UsageError('; '.join(left_out.values()))

    def _picture(self, kind: str, image: NDArray[np.uint8], prediction: Prediction) -> NDArray[Any]:
        if kind == 'masks':
            return prediction.mask
        if kind == 'confidence':
            return confidence_levels(prediction)
        if kind == 'colours':
            return colour_mask(prediction.mask, prediction.palette)
        picture = overlay(image, prediction.mask, prediction.palette, self.options.opacity)
        present = np.flatnonzero(
            pixels_per_class(prediction.mask, len(self.classes))
        )  # sorted, so the legend is stable
        height, width = picture.shape[:2]
        strip = legend({int(i): self.classes[i] for i in present}, self.palette, width, height)
        if 2 * len(strip) < height:  # drawn over the image, because a video keeps its size
            bottom = picture[-len(strip) :]
            bottom[:] = cv2.addWeighted(bottom, 1 - LEGEND, strip, LEGEND, 0)
        return picture
