"""What predictions on CPUs are prepared to, against the same segmentor as it is."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg_volo import load, predict, processor
from mmseg_volo.datasets.scenes import scene
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
    prepared = copy.deepcopy(model)
    processor.prepare(prepared)
    called = []
    for module in prepared.decode_head.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_hook(lambda module, inputs, out: called.append(module))
    image = scene(0, 192, 256)[0]
    assert (predict(model, image).mask == predict(prepared, image).mask).mean() >= processor.SAME
    assert not called
    states = model.state_dict(), prepared.state_dict()
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_prepared_segmentors_train_as_before(plain):
    prepared = copy.deepcopy(plain)
    processor.prepare(prepared)
    image = torch.randn(2, 3, 64, 64)
    found = []
    for model in (copy.deepcopy(plain), prepared):
        torch.manual_seed(0)
        out = model.train()._forward(image)
        found.append(torch.autograd.grad(out.square().mean(), [*model.decode_head.parameters()]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_load_prepares_on_a_cpu_unless_it_is_told_not_to():
    assert any(isinstance(m, WinogradConv2d) for m in load('volo_d1_ade20k', device='cpu').modules())
    assert not any(
        isinstance(m, WinogradConv2d) for m in load('volo_d1_ade20k', device='cpu', optimize=False).modules()
    )


@pytest.mark.parametrize(('same', 'chosen'), [(0.0, True), (1.1, False)])
def test_bfloat16_where_the_processor_has_it_and_the_mask_stays(plain, monkeypatch, same, chosen):
    monkeypatch.setattr(processor, 'has_bf16', lambda: True)
    monkeypatch.setattr(processor, 'SAME', same)
    model, image = copy.deepcopy(plain), scene(1, 64, 64)[0]
    processor.prepare(model)
    dtypes = []
    model.decode_head.conv_seg.register_forward_hook(lambda module, inputs, out: dtypes.append(out.dtype))
    first = predict(model, image).mask
    assert dtypes == [torch.bfloat16, torch.float32]
    assert np.mean(first == predict(plain, image).mask) >= 0.999  # the first one is exact
    predict(model, image)
    assert dtypes[2:] == [torch.bfloat16 if chosen else torch.float32]
