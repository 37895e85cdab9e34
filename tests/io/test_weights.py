"""Reading weights: any official layout, nothing executed, nothing loaded that does not fit."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import pytest
import torch
from helpers.files import Trap
from safetensors.torch import save_file
from torch import Tensor

from mmseg_volo.io.weights import read_state_dict
from mmseg_volo.models.backbones.volo import VOLO

TINY = dict(depths=[1, 1, 1, 1], dims=[16, 32, 32, 32], num_heads=[2, 4, 4, 4], stem_dim=8)


def volo(checkpoint: str | Path | None = None, **kwargs) -> VOLO:
    init_cfg = None if checkpoint is None else dict(type='Pretrained', checkpoint=str(checkpoint))
    return VOLO(TINY, pretrain_img_size=64, **{'init_cfg': init_cfg, **kwargs})


def classifier() -> dict[str, Tensor]:
    """What an official file holds: no out_norms, but a classifier."""
    weights = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in volo().state_dict().items()}
    weights = {k: v for k, v in weights.items() if not k.startswith('out_norms.')}
    return weights | {
        'cls_token': torch.zeros(1, 1, 32),
        'head.weight': torch.zeros(10, 32),
        'norm.bias': torch.zeros(32),
    }


LAYOUTS = {
    'raw': lambda w: w,
    'state_dict': lambda w: {'epoch': 3, 'args': argparse.Namespace(lr=1e-3), 'state_dict': w},
    'ema is preferred': lambda w: {'state_dict': {k: v + 1 for k, v in w.items()}, 'state_dict_ema': w},
    'module.': lambda w: {f'module.{k}': v for k, v in w.items()},
    'state_dict of module.': lambda w: {'state_dict': {f'module.{k}': v for k, v in w.items()}},
    'no step counters': lambda w: {k: v for k, v in w.items() if not k.endswith('num_batches_tracked')},
}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('suffix', ['.pth', '.pth.tar', '.safetensors'])
def test_layouts(tmp_path: Path, layout: str, suffix: str) -> None:
    weights, path = classifier(), tmp_path / f'weights{suffix}'
    content = LAYOUTS[layout](weights)
    if suffix == '.safetensors':
        if not all(isinstance(v, Tensor) for v in content.values()):
            pytest.skip('safetensors files are flat')
        save_file(content, path)
    else:
        torch.save(content, path)
    model = volo(path)
    model.init_weights()
    for key, value in model.state_dict().items():
        if key.startswith('out_norms.'):
            assert torch.equal(value, torch.full_like(value, float(key.endswith('weight'))))
        elif not key.endswith('num_batches_tracked'):
            assert torch.equal(value, weights[key])


def test_prefix_takes_a_backbone_out_of_a_segmentor(tmp_path: Path) -> None:
    trained = volo()
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in trained.state_dict().items()}}, tmp_path / 'seg.pth')
    model = volo(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'seg.pth'), prefix='backbone.'))
    model.init_weights()
    for key, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    with pytest.raises(ValueError, match="no key starts with 'encoder.', the first ones are"):
        read_state_dict(tmp_path / 'seg.pth', 'encoder.')


@pytest.mark.parametrize('raw_pickle', [False, True])
def test_pickle_is_never_executed(tmp_path: Path, raw_pickle: bool) -> None:
    trace, path = tmp_path / 'trace', tmp_path / 'evil.pth'
    content = {**classifier(), 'extra': Trap(trace)}
    if raw_pickle:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match='holds more than weights, or is no checkpoint, and was not loaded'):
        volo(path).init_weights()
    assert not trace.exists()


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', b'PK\x03\x04 cut short'])
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f'broken{suffix}'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'broken{suffix}'):
        read_state_dict(path)


def test_wrong_checkpoints_name_the_first_wrong_keys_and_change_nothing() -> None:
    model, weights = volo(), classifier()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wrong = {
        'missing: network.0.0.attn.attn.bias': {k: v for k, v in weights.items() if k != 'network.0.0.attn.attn.bias'},
        'unknown: layer1.weight': {**weights, 'layer1.weight': torch.zeros(1)},
        r'another shape: network.4.0.mlp.fc1.weight \(7, 32\) for \(96, 32\)': {
            **weights,
            'network.4.0.mlp.fc1.weight': torch.zeros(7, 32),
        },
        'missing: .*, .*, .* and [0-9]+ more; .* unknown: ': {f'encoder.{k}': v for k, v in weights.items()},
    }
    for match, content in wrong.items():
        with pytest.raises(ValueError, match=match):
            model.load_pretrained(content)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_missing_file_and_wrong_sources_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*nowhere.pth: give the path'):
        read_state_dict(tmp_path / 'nowhere.pth')
    with pytest.raises(ValueError, match='local file, timm://NAME or https://HOST/PATH, got http'):
        read_state_dict('http://example.org/weights.pth')
    with pytest.raises(ValueError, match='no such model; it has .*volo_d1'):
        read_state_dict('timm://volo_d9_224.sail_in1k')
    with pytest.raises(ValueError, match='no such weights; it has .*volo_d1_224.sail_in1k'):
        read_state_dict('timm://volo_d1_224.nobody')


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.delenv('MMSEG_VOLO_MIRROR', raising=False)
    return tmp_path


def test_timm_names_come_from_the_hubs_cache(hub: Path) -> None:
    snapshot = hub / 'models--timm--volo_d1_224.sail_in1k/snapshots/0123456789abcdef0123456789abcdef01234567'
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / 'refs').mkdir()
    (snapshot.parents[1] / 'refs/main').write_text(snapshot.name)
    reference = VOLO('d1', out_norm=False)
    save_file({**reference.state_dict(), 'cls_token': torch.zeros(1, 1, 384)}, snapshot / 'model.safetensors')
    model = VOLO('d1', out_norm=False, init_cfg=dict(type='Pretrained', checkpoint='timm://volo_d1_224.sail_in1k'))
    model.init_weights()
    for key, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def test_a_timm_name_that_cannot_be_fetched_says_how_to_go_on(hub: Path) -> None:
    with pytest.raises(ValueError, match='huggingface.co/timm/volo_d1_384.sail_in1k/.* could not be fetched.*by hand'):
        read_state_dict('timm://volo_d1_384.sail_in1k')
