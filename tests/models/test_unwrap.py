"""What may be given to predict with: the segmentor in other shapes gives the same mask, or one sentence."""

from __future__ import annotations

import copy
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from helpers.tiny_training import predictor, train, write_config
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmseg.apis import init_model
from torch import nn
from torch.optim.swa_utils import AveragedModel

import mmseg_volo
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.datasets.synthetic.scenes import scene
from mmseg_volo.errors import UsageError
from mmseg_volo.inference import Options, predict_files

IMAGE = scene(0, 64, 96)[0]


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return mmseg_volo.load(predictor(tmp_path_factory.mktemp('weights')), device='cpu')


class Backend:
    """Counts the graphs that torch.compile makes."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, example: list) -> object:
        self.graphs += 1
        return graph.forward


def by_call(model: nn.Module, backend: Backend) -> nn.Module:
    return torch.compile(model, backend=backend)


def in_place(model: nn.Module, backend: Backend) -> nn.Module:
    model.compile(backend=backend)
    return model


def backbone(model: nn.Module, backend: Backend) -> nn.Module:
    model.backbone = torch.compile(model.backbone, backend=backend)
    return model


def head(model: nn.Module, backend: Backend) -> nn.Module:
    model.decode_head = torch.compile(model.decode_head, backend=backend)
    return model


def head_in_place(model: nn.Module, backend: Backend) -> nn.Module:
    model.decode_head.compile(backend=backend)
    return model


def in_a_wrapper(model: nn.Module, backend: Backend) -> nn.Module:
    return nn.DataParallel(torch.compile(model, backend=backend))


@pytest.mark.parametrize('how', [by_call, in_place, backbone, head, head_in_place, in_a_wrapper])
def test_what_is_compiled_predicts(how, model: nn.Module, tmp_path: Path) -> None:
    compiled = how(copy.deepcopy(model), backend := Backend())
    expected = mmseg_volo.predict(model, IMAGE, ['probability'])
    for _ in range(2):
        found = mmseg_volo.predict(compiled, IMAGE, ['probability'])
        assert np.abs(found.probability - expected.probability).max() < 1e-5
        assert np.array_equal(found.mask, expected.mask)
    assert (graphs := backend.graphs) == 1
    np.save(tmp_path / 'a.npy', IMAGE)
    (found,) = mmseg_volo.predict_each(compiled, [IMAGE])
    assert np.array_equal(found.mask, expected.mask)
    assert backend.graphs == graphs  # once for all
    assert 'segmentor' not in vars(model) and model._compiled_call_impl is None


def test_a_compiled_model_makes_a_folder_of_its_own(model: nn.Module, tmp_path: Path) -> None:
    """As it rounds otherwise; wrapped or not, it is the same model."""
    from PIL import Image

    Image.fromarray(IMAGE).save(tmp_path / 'a.png')
    given = [str(tmp_path / 'a.png')], tmp_path / 'out', Options(['masks'])
    predict_files(model, *given)
    written = predict_files(nn.DataParallel(model), *given)
    assert np.array_equal(np.asarray(Image.open(written[0])), mmseg_volo.predict(model, IMAGE).mask)
    for how in (by_call, in_place, backbone, head_in_place):
        with pytest.raises(UsageError, match=r'holds results made with other settings \(model\)'):
            predict_files(how(copy.deepcopy(model), Backend()), *given)


@pytest.mark.parametrize('wrap', [nn.DataParallel, AveragedModel, ExponentialMovingAverage])
def test_wrapped(wrap, model: nn.Module) -> None:
    assert np.array_equal(mmseg_volo.predict(wrap(model).eval(), IMAGE).mask, mmseg_volo.predict(model, IMAGE).mask)


def test_wrapped_for_several_processes(model: nn.Module, tmp_path: Path) -> None:
    """A process that predicts alone waits for no other."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(model).train()).eval()
        assert np.array_equal(mmseg_volo.predict(wrapped, IMAGE).mask, mmseg_volo.predict(model, IMAGE).mask)
    finally:
        torch.distributed.destroy_process_group()


def test_mmsegs_own(tmp_path: Path) -> None:
    """Segmentors of mmseg's `init_model`, without our classes, in whole."""
    (path,) = (Path(mmseg.__file__).parent / '.mim/configs').glob(
        'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
    )
    cfg = Config.fromfile(path)
    cfg.model.backbone.init_cfg = cfg.model.pretrained = None
    cfg.model.data_preprocessor.size = None
    cfg.test_pipeline[1] = dict(type='Resize', scale=(64, 64), keep_ratio=True)
    model = init_model(cfg, device='cpu')
    with pytest.raises(UsageError, match='the EncoderDecoder has no dataset_meta with classes and palette'):
        mmseg_volo.predict(model, IMAGE)
    model.dataset_meta = dict(classes=['a'] * 19, palette=[[0, 0, 0]] * 19)
    with pytest.raises(UsageError, match='predicts 150 classes, but its dataset_meta lists 19'):
        mmseg_volo.predict(model, IMAGE)
    model.dataset_meta = dict(classes=['a'] * 150, palette=[[0, 0, 0]] * 150)
    assert mmseg_volo.predict(model, IMAGE).mask.shape == IMAGE.shape[:2]
    with pytest.raises(UsageError, match='compile its backbone, model.backbone = torch.compile'):
        mmseg_volo.predict(torch.compile(model), IMAGE)


def no_cfg(model: nn.Module) -> nn.Module:
    del model.cfg
    return model


REFUSED = {
    'half': (lambda model: model.half(), 'expected a model with float32 weights, got float16: call model.float'),
    'bfloat16': (lambda model: model.bfloat16(), r'float32 weights, got bfloat16: .*load\(\.\.\., bf16=True\)'),
    'double': (lambda model: model.double(), 'float32 weights, got float64'),
    'part': (lambda model: model.decode_head.half() and model, 'float32 weights, got float16'),
    'training': (lambda model: model.train(), 'in training mode, .*: call model.eval'),
    'training, wrapped': (lambda model: nn.DataParallel(model).train(), 'in training mode'),
    'backbone': (lambda model: model.backbone, 'expected a segmentor, got CAFormer: pass what mmseg_volo.load returns'),
    'layer': (lambda model: nn.Conv2d(3, 3, 1), 'expected a segmentor, got Conv2d'),
    'path': (lambda model: 'model.pth', 'expected a model first, got str: .*mmseg_volo.load'),
    'no cfg': (no_cfg, 'no cfg with test_pipeline'),
    'compiled wrapper': (lambda model: torch.compile(nn.DataParallel(model)), 'was given a DataParallel'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused_in_one_sentence(name: str, model: nn.Module, tmp_path: Path) -> None:
    change, sentence = REFUSED[name]
    given = change(copy.deepcopy(model))
    with pytest.raises(UsageError, match=sentence):
        mmseg_volo.predict(given, IMAGE)
    with pytest.raises(UsageError, match=sentence):
        [*mmseg_volo.predict_each(given, [IMAGE])]
    with pytest.raises(UsageError, match=sentence):
        predict_files(given, [], tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_config_compiles_its_training(tmp_path: Path) -> None:
    """mmengine's key `compile`; what it trained predicts as ever."""
    from torch._dynamo.utils import counters

    data, work = scenes.generate(tmp_path / 'data', 4, 1, 64, 128), tmp_path / 'work'
    short = 'train_cfg.max_iters=1', 'train_cfg.val_interval=1'
    assert train(write_config(tmp_path, "compile = dict(backend='eager')\n"), data, work, *short) == 0
    assert counters['stats']['unique_graphs'] > 0
    model = mmseg_volo.load(work / 'iter_1.pth', device='cpu')
    assert mmseg_volo.predict(model, IMAGE).mask.shape == IMAGE.shape[:2]
