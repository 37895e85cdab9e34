"""Videos: decoding, the network and encoding at the same time, with a few frames in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from torch import nn

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.api import Prediction, predict
from mmseg_volo.inference.areas import pixels_per_class, table
from mmseg_volo.inference.options import Options
from mmseg_volo.inference.outputs import write_image
from mmseg_volo.inference.sources import Item
from mmseg_volo.utils.files import AtomicFile, write_whole
from mmseg_volo.utils.parallel import WriteBehind, prefetch
from mmseg_volo.utils.progress import ProgressBar
from mmseg_volo.visualization import colour_mask, legend, overlay

PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)  # not the video's fault
LEGEND = 0.75  # opacity
# FFmpeg's names of formats whose files hold the video themselves; playlists would lead to other files
FORMATS = 'mov,matroska,avi,flv,live_flv,mpeg,mpegts,mpegvideo,m4v,asf,asf_o,mxf,ogg,dv,gxf,nut,ivf,obu,h261,h263,h264,'
FORMATS += 'hevc,vvc,vc1,vc1test,mjpeg,gif,rm,wtv,pva,nsv,swf,yuv4mpegpipe,cavsvideo,dirac,dnxhd'
STATED = ('mov', 'matroska', 'avi', 'flv', 'asf', 'mxf')  # those whose head says how long a video is
SPARE = (5, 0.01)  # frames, and share of the duration, that may be missing at the end


def predict_video(
    model: nn.Module, item: Item, out: Path, options: Options
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Writes the results of a video: videos of its size, times and rate, or a file per frame where no video holds them.

    Masks (pixels are class indices) and confidence are lossless grey FFV1 in .mkv, or PNG files; what people look at is
    H.264 in .mp4. Frames are turned as the file says. Sound is left out.

    Returns:
        The files' paths below OUT by kind, and what is to be kept of it: `pixels` of each class, of all frames, and
        in `left_out` why some kinds were left out, where such a file cannot hold them.

    Raises:
        UsageError, OSError: it cannot be read, predicted or written.
    """
    try:
        with _opened(item.path) as source:
            if not source.streams.video:
                raise UsageError(f'{item.path} holds no video')
            stream = source.streams.video[0]
            stream.thread_type = 'AUTO'
            with (
                _Writer(model, item, stream, out, options) as writer,
                WriteBehind() as behind,
                closing(prefetch(_frames(item.path, source, stream))) as frames,  # before the file is closed
                ProgressBar(frames, f'predicting {item.path.name}', stream.frames or None, 'frame', leave=False) as bar,
            ):
                for image, when in bar:
                    behind.submit(writer.add, image, when, predict(model, image, options.maps))
    except av.FFmpegError as error:
        raise UsageError(f'{item.path} is not a readable video, or ends too early: {error.strerror}') from error
    if not writer.number:
        raise UsageError(f'{item.path} holds no frame')
    left_out = {kind: video.problem for kind, video in writer.videos.items() if video.problem}
    files = {kind: names for kind, names in writer.files.items() if kind not in left_out}
    return files, dict(pixels=writer.counts.tolist(), left_out=left_out)


def _url(path: Path) -> str:
    """For FFmpeg, which takes what stands before a colon for a protocol."""
    return f'file:{os.path.abspath(path)}'


def _opened(path: Path) -> Any:
    try:
        return av.open(_url(path), options={'protocol_whitelist': 'file', 'format_whitelist': FORMATS})
    except av.ArgumentError as error:  # what FFmpeg says of other formats
        raise UsageError(f'{path} is a playlist, or no video of a kind that is read: give the videos') from error


def _frames(path: Path, source: Any, stream: Any) -> Iterator[tuple[np.ndarray, int]]:
    """RGB frames and their times, in the stream's time base.

    Raises:
        UsageError: there are clearly fewer than the file says, which FFmpeg passes over in most formats.
    """
    step = round(1 / ((_rate(stream)) * stream.time_base))
    end = 0
    for i, frame in enumerate(source.decode(stream)):
        pixels = np.rot90(frame.to_ndarray(format='rgb24'), frame.rotation // 90)
        when = i * step if frame.pts is None else frame.pts
        end = max(end, when + (frame.duration or step))
        yield np.ascontiguousarray(pixels), when
    stated, start = _stated(source, stream)
    held = float((end - start) * stream.time_base)
    if stated - held > max(SPARE[0] / _rate(stream), SPARE[1] * stated):
        raise UsageError(
            f'{path} ends too early: it says that it takes {stated:.2f} s, and holds {held:.2f} s: fetch it again'
        )


def _stated(source: Any, stream: Any) -> tuple[float, int]:
    """The seconds that a file says its video takes, 0 if it does not, and when these begin, in the stream's time base.

    What FFmpeg guesses where the file does not say it is no measure, nor is the duration of a file with sound.
    """
    names = source.format.name.split(',')
    if not set(names) & set(STATED):
        return 0.0, 0
    if stream.duration:
        frames = stream.frames / _rate(stream) if 'avi' in names else 0  # of a cut AVI FFmpeg shortens the duration
        return float(max(stream.duration * stream.time_base, frames)), stream.start_time or 0
    with suppress(KeyError, ValueError):  # of Matroska, from 0 on
        hours, minutes, seconds = map(float, stream.metadata['DURATION'].split(':'))
        return 3600 * hours + 60 * minutes + seconds, 0
    alone = len(source.streams) == 1 and source.duration
    return source.duration / av.time_base if alone else 0.0, 0


def _rate(stream: Any) -> Fraction:
    return stream.average_rate or stream.guessed_rate or Fraction(25)


class _Video:
    """A video that grows frame by frame, whole or not at all; `problem` says why its codec does not take the frames."""

    def __init__(self, path: Path, codec: str, pixels: str, given: str, like: Any):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.like = path, like
        self.codec, self.pixels, self.given = codec, pixels, given
        self.problem, self.stream = '', None
        self._new = AtomicFile(path)
        try:
            with self._told():
                self.file = av.open(_url(self._new.scratch), 'w')
            if self.problem:
                raise UsageError(self.problem)
        except BaseException:
            self._new.close()
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Of errors while it is written, those of the disk are OSError; others are the codec's, and end this one."""
        try:
            yield
        except av.FFmpegError as error:
            if error.errno in PLACE:
                raise OSError(error.errno, os.strerror(error.errno), str(self.path)) from error
            size = f'{self.stream.width}x{self.stream.height} pixels by {self.codec}' if self.stream else self.codec
            self.problem = f'{self.path} is left out: {size}: {error.strerror}'

    def write(self, pixels: np.ndarray, when: int) -> None:
        """One frame, (H, W) or (H, W, 3) as the format says, at a time in the source's time base."""
        if not self.problem:
            with self._told():
                self._write(pixels, when)

    def _write(self, pixels: np.ndarray, when: int) -> None:
        height, width = pixels.shape[:2]
        if self.stream is None:
            stream = self.file.add_stream(self.codec, rate=_rate(self.like))
            stream.width, stream.height = width, height
            # half as many colours as pixels would need an even size
            stream.pix_fmt = 'yuv444p' if self.pixels == 'yuv420p' and (width % 2 or height % 2) else self.pixels
            stream.codec_context.time_base = self.like.time_base
            if self.like.sample_aspect_ratio:
                stream.codec_context.sample_aspect_ratio = self.like.sample_aspect_ratio
            if self.codec == 'libx264':
                stream.options = {'crf': '18', 'preset': 'veryfast'}
            self.stream = stream
        if (self.stream.width, self.stream.height) != (width, height):
            raise UsageError(f'its frames change their size, from {self.stream.width}x{self.stream.height}')
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=self.given)
        frame.pts, frame.time_base = when, self.like.time_base
        self.file.mux(self.stream.encode(frame))

    def __enter__(self) -> _Video:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with self._told():
                if kind is None and self.stream is not None and not self.problem:
                    self.file.mux(self.stream.encode())
            with self._told():
                self.file.close()
            if kind is None and not self.problem:
                self._new.keep()
        finally:
            self._new.close()


class _Writer:
    """The files of one video."""

    def __init__(self, model: nn.Module, item: Item, like: Any, out: Path, options: Options):
        self.out, self.item, self.options, self.like = out, item, options, like
        self.classes, self.palette = (model.dataset_meta[name] for name in ('classes', 'palette'))
        self.counts, self.number = np.zeros(len(self.classes), np.int64), 0
        self.files: dict[str, list[str]] = {}
        self._areas: list[np.ndarray] = []
        self.videos: dict[str, _Video] = {}
        self._stack = ExitStack()

    def __enter__(self) -> _Writer:
        grey = 'gray' if len(self.classes) <= 256 else 'gray16le'
        h264 = 'libx264' if 'libx264' in av.codecs_available else 'mpeg4'
        how = {'colours': ('.mp4', h264, 'yuv420p', 'rgb24'), 'overlays': ('.mp4', h264, 'yuv420p', 'rgb24')}
        if not self.options.frames:
            how |= {'masks': ('.mkv', 'ffv1', grey, grey), 'confidence': ('.mkv', 'ffv1', 'gray', 'gray')}
        with ExitStack() as stack:
            for kind in self.options.outputs:
                suffix, *format_ = how.get(kind, ('.csv' if kind == 'areas' else '',))
                name = Path(kind) / self.item.stem.parent / f'{self.item.stem.name}{suffix}'
                self.files[kind] = [str(name)]
                if format_:
                    self.videos[kind] = stack.enter_context(_Video(self.out / name, *format_, self.like))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, *error: Any) -> None:
        self._stack.__exit__(kind, *error)
        if kind is None and 'areas' in self.files:
            place = self.out / self.files['areas'][0]
            place.parent.mkdir(parents=True, exist_ok=True)
            frames = (dict(frame=i + 1, pixels=pixels.tolist()) for i, pixels in enumerate(self._areas))
            write_whole(place, table(frames, self.classes, 'frame'))

    def add(self, image: np.ndarray, when: int, found: Prediction) -> None:
        """The next frame."""
        self.number += 1
        pixels = pixels_per_class(found.mask, len(self.classes))
        self.counts += pixels
        if 'areas' in self.files:
            self._areas.append(pixels)
        for kind, video in self.videos.items():
            video.write(self._picture(kind, image, found), when)
        files = [kind for kind in self.files if kind not in self.videos and kind != 'areas']
        stem = self.item.stem / f'{self.number:06d}'
        if left_out := write_image(self.out, stem, image, found, self.options, files)[1]:
            raise UsageError('; '.join(left_out.values()))

    def _picture(self, kind: str, image: np.ndarray, found: Prediction) -> np.ndarray:
        if kind == 'masks':
            return found.mask
        if kind == 'confidence':
            return np.rint(found.confidence * 255).astype(np.uint8)
        if kind == 'colours':
            return colour_mask(found.mask, found.palette)
        picture = overlay(image, found.mask, found.palette, self.options.opacity)
        seen = np.flatnonzero(
            pixels_per_class(found.mask, len(self.classes))
        )  # in one order, so that names do not jump
        strip = legend({i: self.classes[i] for i in seen}, self.palette, *picture.shape[1::-1])
        if 2 * len(strip) < len(picture):  # over the image, for a video keeps its size
            below = picture[-len(strip) :]
            below[:] = cv2.addWeighted(below, 1 - LEGEND, strip, LEGEND, 0)
        return picture
