"""mmseg's EncoderDecoder with predictions made a band of rows at a time."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch
from torch import Tensor, nn

from mmseg_volo.models import cpu as processor
from mmseg_volo.models.normalisation import SEEN, applied_normalisation, mismatch
from mmseg_volo.models.segmentors.strips import Geometry, assemble, read_strip, strips
from mmseg_volo.models.segmentors.test_cfg import PredictionOptions
from mmseg_volo.models.segmentors.windows import LazyImage, SlidingWindowMean

GPU_WINDOWS = 4  # per call: a training step of two images with gradients takes more memory

Bands = Iterator[tuple[slice, Tensor]]


@MODELS.register_module(name=['StreamingEncoderDecoder', 'BandedEncoderDecoder'])
class StreamingEncoderDecoder(EncoderDecoder):
    """The same arguments, weights, losses and results as mmseg's EncoderDecoder, in less time and memory.

    mmseg pads the logits of every window to the full size to add them, and makes whole maps of means and of resized
    means. Here windows stay at the head's resolution and are enlarged, averaged, resized to the image's size and turned
    into classes a band of rows at a time. Images are normalised window by window. What the data preprocessor's
    `test_cfg` pads is padded after windows are cut, where mmseg pads before: see `_to_be_seen`.

    More keys of `test_cfg`: see `PredictionOptions`. Predictions carry no gradients.

    Args:
        backbone, decode_head, ...: mmseg's.

    Raises:
        UsageError: `test_cfg` cannot work.
    """

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        neck: dict | None = None,
        auxiliary_head: dict | list[dict] | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        pretrained: str | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        parts = backbone, decode_head, neck, auxiliary_head, train_cfg, test_cfg
        super().__init__(*parts, data_preprocessor, pretrained, init_cfg)
        self.masks_only = False
        self.bf16 = False  # whether predictions are made in bfloat16, see `processor.use_bf16`
        PredictionOptions.of(self.test_cfg)

    @property
    def options(self) -> PredictionOptions:
        """What `test_cfg` says now."""
        return PredictionOptions.of(self.test_cfg)

    @property
    def keeps_logits(self) -> bool:
        """Whether results hold `seg_logits`."""
        said = self.options.keep_logits
        return not self.masks_only if said is None else said

    @property
    def predicts_as_it_computes(self) -> bool:
        """Whether `forward`, which torch.compile compiles, gives the logits that predictions are made of."""
        head = type(getattr(self.decode_head, '_orig_mod', self.decode_head))  # as torch.compile wraps it
        base = BaseDecodeHead
        steps = type(self).encode_decode, type(self)._forward, head.predict, head.predict_by_feat
        mmsegs = EncoderDecoder.encode_decode, EncoderDecoder._forward, base.predict, base.predict_by_feat
        return steps == mmsegs

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any) -> None:
        """torch's; warns of weights by `mmseg_volo://FILE` that were trained on other pixels than they are given.

        What steps of a pipeline normalise is not seen from here: where the preprocessor leaves values as they are, it
        is silent.
        """
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        source, expected = local_metadata.get(SEEN, (None, None))
        given = applied_normalisation(self, [])
        if given.mean and (sentence := mismatch(source, expected, given)):
            warnings.warn(sentence, stacklevel=2)

    def test_step(self, data: Mapping[str, Any]) -> list[SegDataSample]:
        """mmengine's: predicts a collated batch. Images are normalised window by window."""
        return self._collect(self.bands(data))

    val_step = test_step

    def predict(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> list[SegDataSample]:
        """mmseg's: predicts normalised images (N, 3, H, W)."""
        images = [LazyImage(image, image.shape[1:], _as_it_is) for image in inputs]
        return self._collect(self._bands(images, data_samples))

    def slide_inference(self, inputs: Tensor, batch_img_metas: Sequence[Mapping[str, Any]]) -> Tensor:
        """mmseg's: the mean logits (N, C, H, W) of the windows of normalised images (N, 3, H, W)."""
        found = []
        for image, meta in zip(inputs, batch_img_metas, strict=True):
            mean = self._mean(LazyImage(image, image.shape[1:], _as_it_is), meta, inputs.device, self.options)
            parts = strips(mean, Geometry(mean.image.size), self.out_channels, self.align_corners)
            whole = torch.empty(self.out_channels, *mean.image.size, device=inputs.device)
            for rows, logits in parts:
                whole[:, rows] = logits
            found.append(whole)
        return torch.stack(found) if len(found) > 1 else found[0][None]

    def bands(
        self, data: Mapping[str, Any], options: PredictionOptions | None = None
    ) -> list[tuple[SegDataSample, tuple[int, int], Bands]]:
        """What `test_step` goes through, for those who want something else of it than samples.

        Args:
            data: a collated batch.
            options: instead of what `test_cfg` says.

        Returns:
            For each image of a collated batch its sample, its own (height, width), and an iterator over its rows and
            their logits (C, rows, width). Nothing is computed before it is iterated.
        """
        pre, options = self.data_preprocessor, options or self.options
        if type(pre) is not SegDataPreProcessor:  # another may look at the image as a whole
            data = pre(data, False)
            images = [LazyImage(image, image.shape[1:], _as_it_is) for image in data['inputs']]
            return self._bands(images, data.get('data_samples'), options)
        data = pre.cast_data(data)
        samples = data.get('data_samples')
        if samples is None:
            samples = [SegDataSample(metainfo=dict(ori_shape=tuple(image.shape[1:]))) for image in data['inputs']]
        per_pixel = copy.copy(pre)
        per_pixel.test_cfg = None  # `LazyImage` pads
        images = []
        for image, sample in zip(data['inputs'], samples, strict=True):
            height, width = size = tuple(image.shape[1:])
            if pre.test_cfg:
                known = {key: pre.test_cfg.get(key) for key in ('size', 'size_divisor')}
                _, (info,) = stack_batch([torch.empty(image.shape, device='meta')], **known)
                size = _to_be_seen(size, info['pad_shape'], options)
                padding = (0, size[1] - width, 0, size[0] - height)
                sample.set_metainfo(dict(img_padding_size=padding, pad_shape=size))
            images.append(LazyImage(image, size, lambda crop: per_pixel(dict(inputs=[crop]))['inputs'][0], pre.pad_val))
        return self._bands(images, samples, options)

    def _bands(
        self,
        images: Sequence[LazyImage],
        samples: Sequence[SegDataSample] | None,
        options: PredictionOptions | None = None,
    ) -> list[tuple[SegDataSample, tuple[int, int], Bands]]:
        found, options = [], options or self.options
        for i, image in enumerate(images):
            sample = SegDataSample() if samples is None else samples[i]
            geometry = Geometry(image.size) if samples is None else Geometry.of(sample.metainfo)
            if 'img_padding_size' in sample.metainfo:  # by a preprocessor that does not know of windows
                image.size, geometry = _without_padding(image.size, geometry, options)
            mean = self._mean(image, sample.metainfo, self._device_for(image, geometry, options), options)
            parts = strips(mean, geometry, self.out_channels, self.align_corners)
            found.append((sample, geometry.size, parts))
        return found

    def _collect(self, images: Sequence[tuple[SegDataSample, tuple[int, int], Bands]]) -> list[SegDataSample]:
        wanted = [*self.options.maps, *(['seg_logits'] if self.keeps_logits else [])]
        threshold = getattr(self.decode_head, 'threshold', None)
        for sample, size, parts in images:
            found = assemble(((rows, read_strip(logits, wanted, threshold)) for rows, logits in parts), size)
            sample.set_data({name: PixelData(data=values) for name, values in found.items()})
        return [sample for sample, _, _ in images]

    def _mean(
        self, image: LazyImage, meta: Mapping[str, Any], device: torch.device, options: PredictionOptions
    ) -> SlidingWindowMean:
        slides = options.mode == 'slide'
        return SlidingWindowMean(
            lambda crops: self._logits(crops, meta),
            image,
            options.crop_size if slides else image.size,
            options.stride if slides else image.size,
            options.window_batch or (GPU_WINDOWS if image.image.is_cuda else 1),
            options.window_weight,
            self.align_corners,
            device,
        )

    def _logits(self, crops: Tensor, meta: Mapping[str, Any]) -> Tensor:
        """Logits (N, C, h, w) of crops, of the head's own resolution where the head does nothing but enlarge them."""
        with processor.autocast(self):
            if self.predicts_as_it_computes:
                compiled = getattr(self, '_compiled_call_impl', None)  # set by `compile`, and by `given.segmentor`
                # not the head's `forward`, as mmseg has it: what is compiled of a head is its call
                return self.decode_head(self.extract_feat(crops)) if compiled is None else self(crops)
            size = crops.shape[2:]  # a torch.Size: mmseg's heads enlarge to one of the two
            metas = [{**meta, 'img_shape': size, 'pad_shape': size} for _ in crops]
            return self.encode_decode(crops, metas)

    def _device_for(self, image: LazyImage, geometry: Geometry, options: PredictionOptions) -> torch.device:
        """Where logits are added up and results are kept."""
        device = image.image.device
        if options.accumulate_on is not None:
            return torch.device(options.accumulate_on)
        if device.type != 'cuda':
            return device
        kept = 2 + self.out_channels * (self.keeps_logits + ('probability' in options.maps)) + 2 * len(options.maps)
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return device if 4 * kept * geometry.size[0] * geometry.size[1] < free / 2 else torch.device('cpu')


def _to_be_seen(size: Sequence[int], padded: Sequence[int], options: PredictionOptions) -> tuple[int, int]:
    """How much of an image that a data preprocessor pads the network is to see, (height, width).

    An image that is seen whole is padded as its preprocessor says. Backbones do without, but heads resize maps of
    rounded sizes to one another: of 683 columns each would stand for another stretch of the image, and the logits be
    two to five times as far from those of a wider image. Sliding windows are cut from the image's own pixels, as in
    mmseg's protocol, whose preprocessors do not pad: padding is for a window that the image does not fill, and goes no
    further than the window.
    """
    if options.mode == 'whole':
        return tuple(int(n) for n in padded)
    return tuple(max(own, min(n, crop)) for own, n, crop in zip(size, padded, options.crop_size, strict=True))


def _without_padding(
    padded: tuple[int, int], geometry: Geometry, options: PredictionOptions
) -> tuple[tuple[int, int], Geometry]:
    """The size of a padded picture, and its geometry, without the padding that windows are not to see."""
    left, right, above, below = geometry.padding
    size = _to_be_seen((padded[0] - below, padded[1] - right), padded, options)
    right, below = right - (padded[1] - size[1]), below - (padded[0] - size[0])
    return size, replace(geometry, padding=(left, right, above, below))


def _as_it_is(crop: Tensor) -> Tensor:
    return crop


@contextmanager
def masks_only(model: nn.Module) -> Iterator[None]:
    """Inside, the BandedEncoderDecoders in a model give results without `seg_logits` (unless `keep_logits=True`).

    Tools that look at masks alone use it; other models are left as they are.
    """
    found = [(m, m.masks_only) for m in model.modules() if isinstance(m, StreamingEncoderDecoder)]
    try:
        for segmentor, _ in found:
            segmentor.masks_only = True
        yield
    finally:
        for segmentor, before in found:
            segmentor.masks_only = before
