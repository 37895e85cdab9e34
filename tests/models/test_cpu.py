"""What predictions on CPUs are prepared to, against the same segmentor as it is."""

import copy
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg_volo import load, predict
from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic.scenes import scene
from mmseg_volo.models import cpu as processor
from mmseg_volo.ops.winograd import WinogradConv2d, winograd_conv2d

SIZES = [(48, 48), (45, 47), (64, 33), (1, 512)]


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('bias', [True, False])
def test_winograd_is_the_convolution(size, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 160, 3, padding=1, bias=bias)
    assert WinogradConv2d.does(conv)
    x = torch.randn(2, 128, *size)
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.no_grad():
            exact = F.conv2d(x.double(), conv.weight.double(), None if not bias else conv.bias.double(), padding=1)
            found = winograd_conv2d(x.contiguous(memory_format=layout), conv.weight, conv.bias)
            gap = (found.double() - exact).abs().max() / exact.std()
        assert 1e-9 < gap < 2e-4  # by Winograd's way, and right


def test_winograd_leaves_alone_what_it_does_not_do():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 128, 64, 64), torch.randn(128, 128, 3, 3)
    assert winograd_conv2d(x, weight.requires_grad_()).grad_fn is not None
    with torch.no_grad():
        small = x[..., :16, :16]
        assert torch.equal(winograd_conv2d(small, weight), F.conv2d(small, weight, padding=1))
    for other in (nn.Conv2d(128, 128, 3, 2, 1), nn.Conv2d(128, 128, 3), nn.Conv2d(128, 128, 3, padding=1, groups=2)):
        assert not WinogradConv2d.does(other)


def random_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)


@pytest.fixture(scope='module')
def plain() -> nn.Module:
    torch.manual_seed(0)
    model = load('volo_demo', device='cpu', optimize=False)
    random_statistics(model)
    return model


@pytest.mark.parametrize('config', ['volo_demo', 'volo_d1_ade20k', 'caformer_s18_ade20k', 'coatnet_0_rw_ade20k'])
def test_prepared_segmentors_predict_the_same_and_keep_their_weights(config):
    torch.manual_seed(0)
    model = load(config, device='cpu', optimize=False)
    random_statistics(model)
    model.cfg.test_pipeline = [step for step in model.cfg.test_pipeline if step['type'] != 'Resize']  # to a megapixel
    prepared = copy.deepcopy(model)
    processor.optimize_for_cpu(prepared)
    image = scene(0, 192, 256)[0]
    assert (predict(model, image).mask == predict(prepared, image).mask).mean() >= 0.999
    states = model.state_dict(), prepared.state_dict()
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_prepared_segmentors_train_as_before(plain):
    """In float64: in float32 another order of sums can turn an activation of nearly 0 on, and its gradient with it."""
    prepared = copy.deepcopy(plain)
    processor.optimize_for_cpu(prepared)
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    found = []
    for model in (copy.deepcopy(plain), prepared):
        torch.manual_seed(0)
        out = model.double().train()._forward(image)
        found.append(torch.autograd.grad(out.square().mean(), [*model.decode_head.parameters()]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_heads_that_view_maps_row_by_row_are_left_as_they_are(tmp_path, monkeypatch):
    """As mmseg's OCRHead does, which a cascade of heads has last."""
    monkeypatch.setattr(processor, 'HEADS', ('FCNHead',))
    model = load('volo_demo', device='cpu')
    assert not getattr(model, 'optimized', False) and not any(isinstance(m, WinogradConv2d) for m in model.modules())
    model.decode_head = nn.ModuleList([fcn := nn.Module()])
    fcn.__class__ = type('FCNHead', (nn.Module,), {})
    assert processor.can_optimize(model)
    model.decode_head.append(nn.Conv2d(1, 1, 1))
    assert not processor.can_optimize(model)


def test_load_prepares_on_a_cpu_unless_it_is_told_not_to():
    assert any(isinstance(m, WinogradConv2d) for m in load('volo_d1_ade20k', device='cpu').modules())
    assert not any(
        isinstance(m, WinogradConv2d) for m in load('volo_d1_ade20k', device='cpu', optimize=False).modules()
    )


@pytest.mark.parametrize('kind', ['StreamingEncoderDecoder', 'EncoderDecoder'])
@pytest.mark.parametrize('fast', [True, False])
def test_bfloat16_where_it_is_asked_for(monkeypatch, kind, fast):
    """On any processor, at every call; else float32, whatever the processor has."""
    cfg, image = load_config('volo_demo'), scene(1, 64, 64)[0]
    cfg.model.type = kind
    monkeypatch.setattr(processor, 'has_bf16', lambda device: fast)
    dtypes = []
    for bf16 in (False, True):
        slow = pytest.warns(UserWarning, match='no units for bfloat16') if bf16 and not fast else nullcontext()
        with slow:
            model = load(cfg, device='cpu', bf16=bf16)
        model.decode_head.conv_seg.register_forward_hook(lambda module, inputs, out: dtypes.append(out.dtype))
        for _ in range(2):
            assert predict(model, image, ['confidence']).confidence.dtype == np.float32
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert dtypes == [torch.float32] * 2 + [torch.bfloat16] * 2


def test_bfloat16_is_refused_on_other_devices():
    model = load('volo_demo', device='cpu').to('meta')
    with pytest.raises(ValueError, match="CPUs and CUDA devices, got device 'meta'"):
        processor.use_bf16(model)


def test_what_a_processor_says_of_itself(monkeypatch):
    for flags, has in (('fpu avx512f avx512_bf16', True), ('fpu avx2', False), ('fp asimd bf16', True)):
        monkeypatch.setattr(Path, 'read_text', lambda self, flags=flags: f'flags\t: {flags}\n')
        assert processor.has_bf16() is has

    def missing(self):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, 'read_text', missing)
    assert processor.has_bf16() is None


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize('optimize', [False, True])
@pytest.mark.filterwarnings('ignore:this processor has no units')
def test_one_image_gets_one_answer_whatever_came_before(optimize, bf16):
    """To the bit, after images of other sizes too, and from a model that was loaded anew."""
    torch.manual_seed(0)
    cfg = load_config('volo_demo')
    cfg.model.decode_head.channels = 128  # enough for Winograd's way
    models = [load(cfg, device='cpu', optimize=optimize, bf16=bf16) for _ in range(2)]
    random_statistics(models[0])
    models[1].load_state_dict(models[0].state_dict())
    images = [scene(i, *size)[0] for i, size in enumerate([(192, 256), (64, 64), (50, 301)])]
    first = [predict(models[0], image, ['probability']) for image in images]
    again = [predict(models[1], image, ['probability']) for image in images[::-1]][::-1]
    again += [predict(models[0], image, ['probability']) for image in images]
    for found, expected in zip(again, first * 2, strict=True):
        assert np.array_equal(found.mask, expected.mask) and np.array_equal(found.probability, expected.probability)
