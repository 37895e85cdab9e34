"""What the expressions of `test_fresh_process.py` share; paths are named as in its fixture."""

from __future__ import annotations

MODEL = "from mmseg_volo import load\nmodel = load(CHECKPOINT, device='cpu')\n"
READ = 'from mmseg_volo.io.checkpoint import read_checkpoint\ncontent = read_checkpoint(CHECKPOINT)\n'
PIXELS = 'import numpy as np\nimage, mask = np.zeros((40, 50, 3), np.uint8), np.zeros((40, 50), np.uint8)\n'
TIFF = f"""
{PIXELS}
import pathlib, rasterio
size = dict(height=40, width=50, count=3, dtype='uint8', crs='EPSG:32633', transform=rasterio.Affine(1, 0, 5, 0, -1, 5))
with rasterio.open('a.tif', 'w', driver='GTiff', **size) as file:
    file.write(image.transpose(2, 0, 1))
"""
# configs that a program made: `custom_imports` are obeyed where a file is read, and here is none
AS_DATA = """
from mmengine.config import Config
head = dict(type='LeanSegformerHead', in_channels=[8, 16, 32, 32], in_index=[0, 1, 2, 3], channels=16, num_classes=3,
    norm_cfg=dict(type='BN'), align_corners=False,
    loss_decode=dict(type='WeightedCrossEntropy', class_weight=[1.0, 2.0, 3.0]))
backbone = dict(type='CAFormer', arch=dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32]))
pre = dict(type='mmseg.SegDataPreProcessor', mean=[128.0] * 3, std=[64.0] * 3, size=(64, 64), bgr_to_rgb=True)
parts = dict(backbone=backbone, decode_head=head, data_preprocessor=pre, test_cfg=dict(mode='whole'))
folder = RECIPE.rpartition('/')[0]
steps = [dict(type='LoadImageFromFile'), dict(type='LoadMask'), dict(type='PackSegInputs')]
dataset = dict(type='FolderDataset', ann_file=f'{folder}/val.csv', classes=f'{folder}/classes.csv', masks='colours',
    data_root=SHAPES, pipeline=steps)
loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)
cfg = Config(dict(model=dict(type='StreamingEncoderDecoder', **parts), val_dataloader=loader, test_dataloader=loader,
    test_pipeline=steps, test_evaluator=dict(type='SegIoUMetric', iou_metrics=['mIoU']), test_cfg=dict(type='TestLoop'),
    crop_size=(64, 64), auto_scale_lr=dict(base_batch_size=4)))
"""
SETS = (
    AS_DATA
    + """
from mmseg_volo.datasets.check.config import all_files
sets = all_files(cfg, ['val_dataloader'])
"""
)
WISHES = 'from mmseg_volo.autotrain.options import AutoTrainOptions\n'
WISHES += "wishes = AutoTrainOptions(SHAPES, CONFIG, work_dir='work')\n"
IMAGES = (
    "from mmseg_volo.autotrain.recipe import ImageProperties, InitialWeights\nstart = InitialWeights(None, 224, '')\n"
)
IMAGES += 'images = ImageProperties(64, 48, False)\n'
ARGS = 'from mmseg_volo_cli.parser import build_parser\n'
ARGS += 'args = lambda *given: build_parser().parse_args(["weights", *given])\n'
REFUSED = """
from mmseg_volo.errors import UsageError
def refused(function, *given):
    try:
        function(*given)
    except UsageError as error:
        return str(error)
    raise AssertionError('nothing was refused')
"""
TINY = 'dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32])'
METAFORMERS = ('CAFormer', 'ConvFormer', 'IdentityFormer', 'PoolFormerV2', 'RandFormer')
IMAGE = 'import torch\nimage = torch.zeros(1, 3, 64, 64)\n'
