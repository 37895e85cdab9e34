"""Predict strip by strip with mmseg's EncoderDecoder."""

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

from mmseg_volo.models.cpu import autocast
from mmseg_volo.models.normalisation import SEEN, applied_normalisation, mismatch
from mmseg_volo.models.segmentors.strips import Geometry, assemble, read_strip, strips
from mmseg_volo.models.segmentors.test_cfg import PredictionOptions
from mmseg_volo.models.segmentors.windows import LazyImage, SlidingWindowMean

GPU_WINDOWS = 4  # per call: a training step of two images with gradients takes more memory

Config = dict[str, Any]

Strips = Iterator[tuple[slice, Tensor]]  # rows of an image, their logits (C, rows, W)


@MODELS.register_module(name=['StreamingEncoderDecoder', 'BandedEncoderDecoder'])
class StreamingEncoderDecoder(EncoderDecoder):
    """mmseg's EncoderDecoder, with the same arguments, weights, losses and results, in less time and memory.

    mmseg pads the logits of every window to the full size to add them, and builds whole maps of means and of resized
    means. Here windows stay at the head's resolution and are enlarged, averaged, resized to the image's size and turned
    into classes strip by strip. Images are normalised window by window, and padded by the data preprocessor's
    `test_cfg` after windows are cut; mmseg pads before: see `_padded_size`.

    `PredictionOptions` lists further keys of `test_cfg`. Predictions carry no gradients.

    Args:
        backbone, decode_head, ...: mmseg's.

    Raises:
        UsageError: `test_cfg` is invalid.
    """

    def __init__(
        self,
        backbone: Config,
        decode_head: Config,
        neck: Config | None = None,
        auxiliary_head: Config | list[Config] | None = None,
        train_cfg: Config | None = None,
        test_cfg: Config | None = None,
        data_preprocessor: Config | nn.Module | None = None,
        pretrained: str | None = None,
        init_cfg: Config | list[Config] | None = None,
    ):
        configs = backbone, decode_head, neck, auxiliary_head, train_cfg, test_cfg
        super().__init__(*configs, data_preprocessor, pretrained, init_cfg)
        self.masks_only = False
        self.bf16 = False  # whether to predict in bfloat16, see `models.cpu.use_bf16`
        PredictionOptions.of(self.test_cfg)

    @property
    def options(self) -> PredictionOptions:
        """The current `test_cfg`."""
        return PredictionOptions.of(self.test_cfg)

    @property
    def keeps_logits(self) -> bool:
        """Whether results hold `seg_logits`."""
        keep = self.options.keep_logits
        return not self.masks_only if keep is None else keep

    @property
    def predicts_as_it_computes(self) -> bool:
        """Whether `forward`, which torch.compile compiles, returns the logits that predictions are made of."""
        head: type[BaseDecodeHead] = type(getattr(self.decode_head, '_orig_mod', self.decode_head))  # of torch.compile
        base = BaseDecodeHead
        steps = type(self).encode_decode, type(self)._forward, head.predict, head.predict_by_feat
        mmsegs = EncoderDecoder.encode_decode, EncoderDecoder._forward, base.predict, base.predict_by_feat
        return steps == mmsegs

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        """Load as torch does, and warn if weights from `mmseg_volo://FILE` were trained on other pixel values.

        Nothing is checked if the preprocessor does not normalise: the pipeline, which may, is not known here.
        """
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        source, expected = local_metadata.get(SEEN, (None, None))
        given = applied_normalisation(self, [])
        if given.mean and (sentence := mismatch(source, expected, given)):
            warnings.warn(sentence, stacklevel=2)

    def test_step(self, data: Mapping[str, Any]) -> list[SegDataSample]:
        """Predict a collated batch, as in mmengine. Images are normalised window by window."""
        return self._collect(self.strips(data))

    val_step = test_step

    def predict(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> list[SegDataSample]:
        """Predict normalised images (N, 3, H, W), as in mmseg."""
        images = [LazyImage(image, image.shape[1:], _unchanged) for image in inputs]
        return self._collect(self._strips(images, data_samples))

    def slide_inference(self, inputs: Tensor, batch_img_metas: Sequence[Mapping[str, Any]]) -> Tensor:
        """Compute the mean logits (N, C, H, W) of the windows of normalised images (N, 3, H, W), as in mmseg."""
        means = []
        for image, meta in zip(inputs, batch_img_metas, strict=True):
            mean = self._mean(LazyImage(image, image.shape[1:], _unchanged), meta, inputs.device, self.options)
            whole = torch.empty(self.out_channels, *mean.image.size, device=inputs.device)
            for rows, logits in strips(mean, Geometry(mean.image.size), self.out_channels, self.align_corners):
                whole[:, rows] = logits
            means.append(whole)
        return torch.stack(means) if len(means) > 1 else means[0][None]

    def strips(
        self, data: Mapping[str, Any], options: PredictionOptions | None = None
    ) -> list[tuple[SegDataSample, tuple[int, int], Strips]]:
        """Predict a batch strip by strip: what `test_step` collects.

        Args:
            data: a collated batch.
            options: instead of `test_cfg`.

        Returns:
            For each image its sample, its own (height, width), and an iterator of rows and their logits (C, rows,
            width). Nothing is computed before it is iterated.
        """
        pre, options = self.data_preprocessor, options or self.options
        if type(pre) is not SegDataPreProcessor:  # another one may need the whole image
            data = pre(data, False)
            images = [LazyImage(image, image.shape[1:], _unchanged) for image in data['inputs']]
            return self._strips(images, data.get('data_samples'), options)
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
                size = _padded_size(size, info['pad_shape'], options)
                padding = (0, size[1] - width, 0, size[0] - height)
                sample.set_metainfo(dict(img_padding_size=padding, pad_shape=size))
            images.append(LazyImage(image, size, lambda crop: per_pixel(dict(inputs=[crop]))['inputs'][0], pre.pad_val))
        return self._strips(images, samples, options)

    def _strips(
        self,
        images: Sequence[LazyImage],
        samples: Sequence[SegDataSample] | None,
        options: PredictionOptions | None = None,
    ) -> list[tuple[SegDataSample, tuple[int, int], Strips]]:
        predictions, options = [], options or self.options
        for i, image in enumerate(images):
            sample = SegDataSample() if samples is None else samples[i]
            geometry = Geometry(image.size) if samples is None else Geometry.of(sample.metainfo)
            if 'img_padding_size' in sample.metainfo:  # by a preprocessor that pads whole images
                image.size, geometry = _without_padding(image.size, geometry, options)
            mean = self._mean(image, sample.metainfo, self._device_for(image, geometry, options), options)
            logits = strips(mean, geometry, self.out_channels, self.align_corners)
            predictions.append((sample, geometry.size, logits))
        return predictions

    def _collect(self, images: Sequence[tuple[SegDataSample, tuple[int, int], Strips]]) -> list[SegDataSample]:
        wanted = [*self.options.maps, *(['seg_logits'] if self.keeps_logits else [])]
        threshold = getattr(self.decode_head, 'threshold', None)
        for sample, size, logits in images:
            whole = assemble(((rows, read_strip(strip, wanted, threshold)) for rows, strip in logits), size)
            sample.set_data({name: PixelData(data=values) for name, values in whole.items()})
        return [sample for sample, _, _ in images]

    def _mean(
        self, image: LazyImage, meta: Mapping[str, Any], device: torch.device, options: PredictionOptions
    ) -> SlidingWindowMean:
        crop, stride = options.windows if options.mode == 'slide' else (image.size, image.size)
        return SlidingWindowMean(
            lambda crops: self._logits(crops, meta),
            image,
            crop,
            stride,
            options.window_batch or (GPU_WINDOWS if image.image.is_cuda else 1),
            options.window_weight,
            self.align_corners,
            device,
        )

    def _logits(self, crops: Tensor, meta: Mapping[str, Any]) -> Tensor:
        """Compute logits (N, C, h, w) of crops, at the head's resolution if the head would only enlarge them."""
        with autocast(self):
            if self.predicts_as_it_computes:
                compiled = getattr(self, '_compiled_call_impl', None)  # set by `compile` and `unwrap_segmentor`
                # the head is called, where mmseg calls its `forward`: a compiled head is compiled in its call
                logits: Tensor = self.decode_head(self.extract_feat(crops)) if compiled is None else self(crops)
                return logits
            size = crops.shape[2:]  # mmseg's heads enlarge to one of the two
            metas = [{**meta, 'img_shape': size, 'pad_shape': size} for _ in crops]
            logits = self.encode_decode(crops, metas)
            return logits

    def _device_for(self, image: LazyImage, geometry: Geometry, options: PredictionOptions) -> torch.device:
        """Choose the device on which logits are added up and results are kept."""
        device = image.image.device
        if options.accumulate_on is not None:
            return torch.device(options.accumulate_on)
        if device.type != 'cuda':
            return device
        kept = 2 + self.out_channels * (self.keeps_logits + ('probability' in options.maps)) + 2 * len(options.maps)
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return device if 4 * kept * geometry.size[0] * geometry.size[1] < free / 2 else torch.device('cpu')


def _padded_size(size: Sequence[int], padded: Sequence[int], options: PredictionOptions) -> tuple[int, int]:
    """Return the (height, width) that the network sees of an image that a data preprocessor pads.

    With mode 'whole' all the preprocessor's padding is kept. Backbones do not need it, but heads resize maps of rounded
    sizes to one another: with 683 columns each map would cover another stretch of the image, and the logits would be
    two to five times as far from those of a wider image. Sliding windows are cut from the image's own pixels, as in
    mmseg's protocol, whose preprocessors do not pad: only an image smaller than a window is padded, to that size.
    """
    height, width = (int(n) for n in padded)
    if options.mode == 'whole':
        return height, width
    crop_height, crop_width = options.windows[0]
    return max(size[0], min(height, crop_height)), max(size[1], min(width, crop_width))


def _without_padding(
    padded: tuple[int, int], geometry: Geometry, options: PredictionOptions
) -> tuple[tuple[int, int], Geometry]:
    """Return the size of a padded image and its geometry without the padding that windows do not use."""
    left, right, above, below = geometry.padding
    size = _padded_size((padded[0] - below, padded[1] - right), padded, options)
    right, below = right - (padded[1] - size[1]), below - (padded[0] - size[0])
    return size, replace(geometry, padding=(left, right, above, below))


def _unchanged(crop: Tensor) -> Tensor:
    return crop


@contextmanager
def masks_only(model: nn.Module) -> Iterator[None]:
    """Leave `seg_logits` out of the results of a model's StreamingEncoderDecoders (unless `keep_logits=True`).

    For tools that need masks alone; other segmentors are not changed.
    """
    segmentors = [(m, m.masks_only) for m in model.modules() if isinstance(m, StreamingEncoderDecoder)]
    try:
        for segmentor, _ in segmentors:
            segmentor.masks_only = True
        yield
    finally:
        for segmentor, before in segmentors:
            segmentor.masks_only = before
