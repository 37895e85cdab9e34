"""What calls each public function, for `test_fresh_process.py`: name -> source; paths are named as in its fixture."""

from __future__ import annotations

MODEL = "from mmseg_volo import load\nmodel = load(CHECKPOINT, device='cpu')\n"
READ = 'from mmseg_volo.checkpoint_files import read_checkpoint\ncontent = read_checkpoint(CHECKPOINT)\n'
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
cfg = Config(dict(model=dict(type='BandedEncoderDecoder', **parts), val_dataloader=loader, test_dataloader=loader,
    test_pipeline=steps, test_evaluator=dict(type='SegIoUMetric', iou_metrics=['mIoU']), test_cfg=dict(type='TestLoop'),
    crop_size=(64, 64), auto_scale_lr=dict(base_batch_size=4)))
"""
SETS = (
    AS_DATA
    + """
from mmseg_volo.datasets.check import all_files
sets = all_files(cfg, ['val_dataloader'])
"""
)
WISHES = "from mmseg_volo.folders.start import Wishes\nwishes = Wishes(SHAPES, CONFIG, work_dir='work')\n"
IMAGES = "from mmseg_volo.folders.plan import Images, Start\nstart = Start(None, 224, '')\n"
IMAGES += 'images = Images(64, 48, False)\n'
ARGS = 'from mmseg_volo_cli import parser\nargs = lambda *given: parser().parse_args(["weights", *given])\n'
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

EXPRESSIONS = {
    'load': "assert len(load(CHECKPOINT, device='cpu').dataset_meta['classes']) == 10",
    'predict': MODEL + 'assert predict(model, IMAGE).mask.shape == (64, 128)',
    'predict_each': MODEL + 'assert [found.mask.shape for found in predict_each(model, [IMAGE])] == [(64, 128)]',
    'Prediction': PIXELS + 'assert Prediction(mask, [], []).confidence is None',
    'backbones.VOLO': IMAGE + 'arch = dict(depths=[1, 1, 1, 1], dims=[16, 32, 32, 32], num_heads=[2, 4, 4, 4], '
    'stem_dim=8)\nassert len(VOLO(arch, pretrain_img_size=64)(image)) == 4',
    'backbones.T2TViT': IMAGE + 'assert len(T2TViT(dict(depths=[2, 1], dim=32, num_heads=2, token_dim=8))(image)) == 4',
    'backbones.CoAtNet': IMAGE + 'arch = dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32], stem_width=[8, 8], '
    'dim_head=8)\nassert len(CoAtNet(arch)(image)) == 4',
    **{f'backbones.{name}': IMAGE + f'assert len({name}({TINY})(image)) == 4' for name in METAFORMERS},
    'cards.read_card': "from mmseg_volo.config import find_config\nassert read_card(find_config('volo_demo')).cost",
    'cards.write_estimate': 'import pathlib, shutil\npath = pathlib.Path(shutil.copy(CONFIG, "here.py"))\n'
    "assert not write_estimate(path, 'none')",
    'checkpoint_files.read_checkpoint': "assert 'state_dict' in read_checkpoint(CHECKPOINT)",
    'checkpoint_files.damage': 'import pathlib\nassert damage(pathlib.Path(CHECKPOINT)) is None',
    'checkpoint_files.save_safetensors': READ + "save_safetensors(content['state_dict'], 'a.safetensors', {})",
    'checkpoint_files.checksum': READ + "assert len(checksum(content['state_dict'], {})) == 64",
    'checkpoint_files.encode': 'assert encode(dict(a=(1,))) == \'{"a": {"()": [1]}}\'',
    'checkpoint_files.decode': 'assert decode(\'{"()": [1]}\') == (1,)',
    'config.shipped_configs': "assert 'volo_demo' in shipped_configs()",
    'config.nearest': "assert 'volo' in nearest('vollo', ['volo'])",
    'config.find_config': "assert find_config('configs/volo_demo.py').is_file()",
    'config.load_config': "assert load_config('volo_demo').model.backbone.type == 'VOLO'",
    'cost.build_on_meta': AS_DATA + 'assert build_on_meta(cfg).decode_head.num_classes == 3',
    'cost.estimate': AS_DATA
    + 'cfg.update(train_dataloader=dict(batch_size=2), train_cfg=dict(max_iters=10))\nassert estimate(cfg).gpus == 2',
    'cost.count': AS_DATA
    + 'from mmseg_volo.cost import build_on_meta\nassert count(build_on_meta(cfg), 1, (64, 64))[0]',
    'cost.main': "assert main(['volo_demo']) == 0",
    'datasets.CamVidDataset': "assert len(CamVidDataset(data_root=DATA, img_suffix='.png', "
    "data_prefix=dict(img_path='leftImg8bit/val'))) == 2",
    'datasets.LoadRandomCrop': 'assert LoadRandomCrop((64, 64), (1.0, 2.0), (32, 32))',
    'datasets.ContiguousRandomFlip': 'assert ContiguousRandomFlip(prob=1.0)',
    'datasets.TablePhotoMetricDistortion': PIXELS + 'assert TablePhotoMetricDistortion()(dict(img=image))',
    'datasets.check.files_of': AS_DATA + "assert len(files_of(Config(dataset), 'val')[0].pairs) > 0",
    'datasets.check.check_data': AS_DATA + "assert check_data(cfg, ['val_dataloader'], True)['notes'] is not None",
    'datasets.check.all_files': AS_DATA + "assert [*all_files(cfg, ['val_dataloader'])] == ['val_dataloader']",
    'datasets.check.check_files': AS_DATA + "assert check_files(Config(dataset), 'val') > 0",
    'datasets.check.check_config': AS_DATA + "check_config(cfg, 1, 'report.json')",
    'datasets.check.reading': AS_DATA + "assert reading(object(), dict(label_map=None, reduce_zero_label=False), 'ab')",
    'datasets.check.meanings': 'item = dict(label_map=None, reduce_zero_label=False)\n'
    "assert 1 in meanings(item, 'ab', 255)",
    'datasets.check.remembered': SETS + "assert remembered(sets)['faults'] == {}",
    'datasets.check.remember': SETS + 'import os\nos.environ["TORCH_HOME"] = "home"\nremember({}, sets)',
    'datasets.check.keep': "import pathlib\nkeep({}, pathlib.Path('kept.json'))",
    'datasets.prepare.prepare': REFUSED + "try:\n    prepare('camvid', 'nowhere')\nexcept FileNotFoundError: pass",
    'datasets.prepare.look': 'import pathlib\nfrom mmseg_volo.datasets.layouts import LAYOUTS, find\n'
    "layout = LAYOUTS['cityscapes']\nassert look(layout, pathlib.Path(DATA), find(layout, pathlib.Path(DATA)), 1)",
    'datasets.prepare.main': "assert main(['camvid', 'nowhere']) == 2",
    'datasets.scenes.scene': 'assert scene(1, 40, 50)[1].shape == (40, 50)',
    'datasets.scenes.generate': "assert generate('scenes', 1, 1, 32, 32).is_dir()",
    'datasets.survey.survey': SETS + "assert survey(sets, 1)['faults'] == {}",
    'datasets.survey.judge': SETS + 'from mmseg_volo.datasets.examine import Tally\n'
    'assert judge(sets, {role: Tally() for role in sets}, {}, [])',
    'datasets.survey.complain': 'complain(dict(faults={}))',
    'datasets.survey.summary': SETS + 'from mmseg_volo.datasets.survey import survey\nassert summary(survey(sets, 1))',
    'datasets.survey.columns': "assert columns([('a', 1)])",
    'download.cached_path': "assert cached_path('https://example.org/a.pth').name",
    'download.find': "assert find('https://example.org/no/such/file.pth') is None",
    'download.fetch': REFUSED + "assert 'example.org' in refused(fetch, 'https://example.org/no/such/file.pth')",
    'draw.colour': PIXELS + 'assert colour(mask, [[1, 2, 3]])[0, 0].tolist() == [1, 2, 3]',
    'draw.overlay': PIXELS + 'assert overlay(image, mask, [[1, 2, 3]]).shape == image.shape',
    'draw.with_legend': PIXELS + "assert with_legend(image, mask, ['a'], [[1, 2, 3]]).shape[0] > 40",
    'draw.legend': "assert legend({0: 'a'}, [[1, 2, 3]], 100, 100).shape[1] == 100",
    'engine.AveragePerUpdateHook': 'assert AveragePerUpdateHook()',
    'engine.CpuAmpOptimWrapper': 'import torch\nparameters = [torch.zeros(1, requires_grad=True)]\n'
    'assert CpuAmpOptimWrapper(optimizer=torch.optim.SGD(parameters, 0.1))',
    'engine.DrawSampler': 'assert len([draw for draw, _ in zip(DrawSampler(range(4), seed=0), range(4))]) == 4',
    'engine.FiniteHook': 'assert FiniteHook(tries=2)',
    'engine.LastingEarlyStoppingHook': "assert LastingEarlyStoppingHook(monitor='mIoU')",
    'engine.MeanOverProcessesHook': 'assert MeanOverProcessesHook()',
    'engine.MuonAdamW': 'import torch\nassert MuonAdamW([torch.zeros(2, 2, requires_grad=True)])',
    'engine.OverlayHook': "assert OverlayHook(out_dir='out')",
    'engine.PatientMLflow': "assert PatientMLflow('out')",
    'engine.PatientTensorboard': "assert PatientTensorboard('out')",
    'engine.PatientVisBackend': "assert PatientVisBackend('out')",
    'engine.PatientWandb': "assert PatientWandb('out')",
    'engine.PlainCheckpointHook': 'assert PlainCheckpointHook()',
    'engine.ProgressHook': 'assert ProgressHook()',
    'engine.ProportionalPolyLR': 'import torch\nsgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)\n'
    'assert ProportionalPolyLR(sgd, eta_min=0.01, begin=0, end=9, by_epoch=False)',
    'engine.SafeCheckpointHook': 'assert SafeCheckpointHook(by_epoch=False)',
    'engine.SchedulePerUpdateHook': 'assert SchedulePerUpdateHook()',
    'engine.SegOptimWrapperConstructor': MODEL
    + "wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0))"
    '\nassert SegOptimWrapperConstructor(wrapper, dict(layer_decay_rate=0.9))(model)',
    'engine.SegRunner': AS_DATA
    + "cfg.update(work_dir='work', load_from='a.pth', val_dataloader=None, default_scope='mmseg')\n"
    'import torch\nrunner = SegRunner.from_cfg(cfg)\ntorch.save(runner.model.state_dict(), "a.pth")\n'
    "assert 'mIoU' in runner.test()",
    'engine.SegTrainLoop': 'assert SegTrainLoop',
    'engine.StopHook': 'assert StopHook()',
    'engine.TestScoresHook': 'assert TestScoresHook()',
    'engine.loading.load_from_mmseg_volo': "assert load_from_mmseg_volo(f'mmseg_volo://{CHECKPOINT}')['state_dict']",
    'engine.loading.starts_as_data': MODEL + 'starts_as_data(model)',
    'engine.loading.without_starts': MODEL + 'without_starts(model)',
    'errors.sentence': "assert sentence(ValueError('what')) == 'what'",
    'errors.say': "say(ValueError('what'))",
    'evaluation.MaskFiles': "assert MaskFiles('out')",
    'evaluation.SegIoUMetric': "assert SegIoUMetric(iou_metrics=['mIoU'])",
    'evaluation.masks.class_values': "assert class_values(dict(classes='ab')).tolist() == [0, 1]",
    'evaluation.masks.write_mask': PIXELS
    + "import pathlib\nassert write_mask(pathlib.Path(), 'a.jpg', mask) == 'a.png'",
    'evaluation.masks.format_only': AS_DATA
    + "format_only(cfg, 'masks')\nassert cfg.test_evaluator.type == 'MaskFiles'",
    'evaluation.masks.without_labels': AS_DATA + 'assert len(without_labels(steps)) == 2',
    'files.scratch': "import pathlib\nassert scratch(pathlib.Path('a'))",
    'files.write_whole': "import pathlib\nwrite_whole(pathlib.Path('a'), b'')",
    'folders.FolderDataset': AS_DATA
    + 'dataset.pop("type")\ndataset.pop("pipeline")\nassert len(FolderDataset(**dataset))',
    'folders.LoadBands': "assert LoadBands([0] * 5, [1] * 5)(dict(img_path=BANDS))['img'].shape[2] == 5",
    'folders.LoadMask': 'assert LoadMask()({}) == {}',
    'folders.bands.is_plain': 'import pathlib\nassert is_plain(pathlib.Path(IMAGE))',
    'folders.bands.read_bands': 'assert read_bands(BANDS)[0].shape[2] == 5',
    'folders.bands.array_of': "assert array_of(open(BANDS, 'rb').read())[0].shape[2] == 5",
    'folders.bands.as_picture': 'assert as_picture(BANDS).shape[2] == 3',
    'folders.dataset.image_size': 'import pathlib\nassert image_size(pathlib.Path(IMAGE)) == ((128, 64), False)',
    'folders.memory.check_disk': AS_DATA + "import pathlib\nassert check_disk(cfg, pathlib.Path('work')) > 0",
    'folders.plan.is_shipped': "assert is_shipped('volo_demo') and not is_shipped('volo_d1')",
    'folders.plan.crop_of': IMAGES + 'assert crop_of(images, [64]) == (64, 64)',
    'folders.plan.length_of': 'assert length_of(10, 2, 1, False) == 5',
    'folders.plan.class_weights': 'assert class_weights([1, 1]) is None',
    'folders.plan.recipe': IMAGES + "assert recipe('caformer_s18', start, images, (64, 64), 2, 10, 5)['model']",
    'folders.plan.shipped': "assert shipped('volo_demo', None, None)['model']",
    'folders.plan.set_length': IMAGES + 'from mmseg_volo.folders.plan import recipe\n'
    "set_length(recipe('caformer_s18', start, images, (64, 64), 2, 10, 5), 20)",
    'folders.plan.model_words': AS_DATA + 'assert model_words(cfg)',
    'folders.plan.absolute': "assert absolute('a').startswith('/')",
    'folders.start.prepare_training': WISHES + 'assert prepare_training(wishes).is_file()',
    'folders.start.understand_folder': WISHES + 'assert understand_folder(wishes).splits',
    'folders.start.say_best': WISHES + 'say_best(wishes)',
    'heads.LeanUPerHead': 'assert LeanUPerHead(in_channels=[8, 8], in_index=[0, 1], channels=8, num_classes=3, '
    "loss_decode=dict(type='WeightedCrossEntropy', class_weight=[1.0, 2.0, 3.0]))",
    'heads.LeanSegformerHead': AS_DATA + 'head.pop("type")\nassert LeanSegformerHead(**head)',
    'datasets.check.keep_apart': REFUSED
    + AS_DATA
    + 'keep_apart(dataset, "elsewhere", "--out")\nrefused(keep_apart, dataset, f"{SHAPES}/images/out", "--out")',
    'files.encode': PIXELS + "assert encode('.png', image)[1:4] == b'PNG'",
    'kinds.folders': 'import pathlib\nassert len([*folders(pathlib.Path(SHAPES), [])]) == 3',
    'locks.in_words': "assert in_words({}) == 'another process'",
    'locks.told': "import pathlib\nassert told(pathlib.Path('none')) == {}",
    'locks.take_one_of': "import pathlib\nwith take_one_of(pathlib.Path('a'), 'b') as lock:\n    lock.path.stat()",
    'locks.others_in': "import pathlib\nassert not [*others_in(pathlib.Path('a'), 'b')]",
    'normalisation.expected_by': "assert expected_by('timm://coatnet_0_rw_224.sw_in1k').mean == (127.5,) * 3",
    'normalisation.given_to': MODEL + "assert given_to(model, []).order == 'RGB'",
    'normalisation.mismatch': 'from mmseg_volo.normalisation import Normalisation as Seen\n'
    "assert 'a was' in mismatch('a', Seen((0.0,), (1.0,)), Seen((0.0,), (2.0,)))",
    'normalisation.published_as': "assert published_as('timm://volo_d1_384.sail_in1k', {}).pixels == 384",
    'normalisation.trained_size': "assert trained_size('timm://volo_d1_384.sail_in1k', {})[1] == 384",
    'normalisation.mismatches': MODEL + 'assert not [*mismatches(model, [])]',
    'normalisation.steps_of': AS_DATA + 'assert len(steps_of(cfg)) == 3',
    'value_ranges.check_range': REFUSED
    + "import numpy as np\nfrom mmseg_volo.value_ranges import Values\nvalues = Values(np.dtype('uint16'))\n"
    + "values.add(np.full(9, 200, np.uint16))\nrefused(check_range, values, 'a')",
    'value_ranges.to_bytes': PIXELS + 'assert to_bytes(image + 0.5, (0, 1)).max() == 128',
    'value_ranges.to_rgb': PIXELS + "assert to_rgb(mask, 'a').shape == (40, 50, 3)",
    'weights.starts': "assert starts(dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='a')))) == ['a']",
    'weights.fetch_starts': 'assert fetch_starts({}, "") is None',
    'zoo.record_of': "assert record_of('timm://volo_d1_384.sail_in1k').pixels == 384",
    'raster_reader.rasterio_module': "assert rasterio_module().__name__ == 'rasterio'",
    'raster_reader.driver_of': "assert driver_of(b'II*\\0' + b'0' * 8) == 'GTiff'",
    'raster_reader.open_any': TIFF + "with open_any('a.tif') as raster:\n    assert raster.count == 3",
    'raster_reader.open_georeferenced': TIFF + 'assert open_georeferenced(pathlib.Path("a.tif")).width == 50',
    'raster_reader.forget_error': TIFF + 'assert forget_error(rasterio.open("a.tif")) is None',
    'raster_reader.is_georeferenced': TIFF + 'assert is_georeferenced(rasterio.open("a.tif"))',
    'raster_reader.loses_georeference': TIFF + 'assert loses_georeference(pathlib.Path("a.tif"))',
    'raster_pixels.colours_of': TIFF + 'assert colours_of(rasterio.open("a.tif")) is None',
    'raster_pixels.is_masked': TIFF + 'assert not is_masked(rasterio.open("a.tif"))',
    'raster_pixels.widened': TIFF + 'assert not widened(rasterio.open("a.tif"), image).any()',
    'raster_pixels.native': TIFF + 'assert native(rasterio.open("a.tif")).shape == (3, 40, 50)',
    'raster_pixels.missing': TIFF + 'assert missing(rasterio.open("a.tif"), None, image.transpose(2, 0, 1)) is None',
    'images.as_array': PIXELS + 'assert as_array(image)[0].shape == (40, 50, 3)',
    'images.path_of': 'assert str(path_of(IMAGE)) == IMAGE',
    'images.as_rgb': 'assert as_rgb(IMAGE).shape == (64, 128, 3)',
    'inference.OUTPUTS': "assert 'masks' in OUTPUTS",
    'inference.Options': 'assert Options().outputs',
    'inference.predict_files': MODEL + "assert len(predict_files(model, [IMAGE], 'out')) == 2",
    'inference.inputs.real_path': "import pathlib\nassert real_path(pathlib.Path('a/../b')).endswith('/b')",
    'inference.inputs.find_inputs': "import pathlib\nassert find_inputs([IMAGE], pathlib.Path('out'))",
    'launch.main': "assert main(['--help']) == 0 and main(['x']) == 2",
    'launch.torchrun_options': "assert torchrun_options('2', {})",
    'launch.explain': 'from torch.distributed.elastic.multiprocessing.errors import ProcessFailure\n'
    "assert explain({0: ProcessFailure(0, 1, 3, 'none')}, True) == 3",
    'losses.WeightedCrossEntropy': 'assert WeightedCrossEntropy(class_weight=[1.0, 2.0])',
    'model_zoo.count': AS_DATA + 'cfg.train_dataloader = loader\nassert count(cfg).parameters > 0',
    'model_zoo.describe': "assert describe('volo_demo').family == 'VOLO'",
    'model_zoo.page': "from mmseg_volo.model_zoo import DATASETS, describe\nmodel = describe('volo_demo')\n"
    'assert page([model._replace(dataset=name) for name in DATASETS.values()])',
    'model_zoo.by': "assert by((1, 2)) == '1x2'",
    'model_zoo.metafile': "from mmseg_volo.model_zoo import describe\nassert metafile([describe('volo_demo')])",
    'necks.StridePyramid': 'assert StridePyramid([8, 8, 8, 8], [8, 16, 16, 16])',
    'pictures.read_image': 'assert read_image(IMAGE).shape == (64, 128, 3)',
    'pictures.decode_image': "assert decode_image(open(IMAGE, 'rb').read(), 'a').shape == (64, 128, 3)",
    'pictures.decode_pixels': "assert decode_pixels(open(IMAGE, 'rb').read(), 'a').shape == (64, 128, 3)",
    'pictures.orientation_of': "assert orientation_of(open(IMAGE, 'rb').read()) == 1",
    'pictures.turned': PIXELS + 'assert turned(image, 6).shape == (50, 40, 3)',
    'pictures.is_plain_tiff': 'import pathlib\nassert not is_plain_tiff(pathlib.Path(IMAGE))',
    'pictures.read_label': 'assert read_label(LABEL).shape == (64, 128)',
    'pictures.broken_png': "assert not broken_png(open(IMAGE, 'rb').read())",
    'processor.prepare': MODEL.replace("'cpu'", "'cpu', optimize=False") + 'prepare(model)',
    'processor.has_bf16': 'assert has_bf16() in (True, False)',
    'processor.autocast': MODEL + 'import contextlib\nassert isinstance(autocast(model), contextlib.nullcontext)',
    'processor.settings': MODEL + "assert settings(model) == dict(precision='float32', optimization=True)",
    'processor.use_bf16': MODEL + 'use_bf16(model)\nassert model.bf16',
    'records.meta_of': READ + 'assert meta_of(content)',
    'records.config_of': READ + "assert config_of(content, 'a').model",
    'records.published': READ + 'assert published(content)',
    'report.write_report': "import pathlib\npathlib.Path('work').mkdir()\n" + REFUSED + "refused(write_report, 'work')",
    'segmentors.BandedEncoderDecoder': AS_DATA + 'assert BandedEncoderDecoder(**parts)',
    'segmentors.RunningTTA': AS_DATA + 'from mmengine.registry import DefaultScope\n'
    "with DefaultScope.overwrite_default_scope('mmseg'):\n    assert RunningTTA(module=cfg.model)",
    'segmentors.masks_only': MODEL + 'with masks_only(model):\n    assert not model.keeps_logits',
    'transfer.require_https': "require_https('https://example.org')",
    'transfer.sha256': 'import pathlib\nassert len(sha256(pathlib.Path(IMAGE))) == 64',
    'trial.tiny': 'assert tiny()',
    'trial.training_step': "assert 'loss' in training_step('cpu')",
    'weights.unwrap': READ + "assert unwrap(content, 'a')",
    'weights.read_source': 'assert read_source(CHECKPOINT)',
    'weights.read_state_dict': "assert read_state_dict(CHECKPOINT, 'backbone.')",
    'weights.pick': READ + "assert pick(content, 'a', 'backbone.')",
    'weights.locate': 'assert str(locate(CHECKPOINT)) == CHECKPOINT',
    'weights.url_of': "assert url_of('timm://volo_d1_224.sail_in1k').startswith('https://')",
    'weights.not_finite': READ + "assert not_finite(content['state_dict']) == []",
    'weights.check_fit': MODEL + "check_fit(model, model.state_dict(), 'a')",
    'weights.have': 'assert str(have(CHECKPOINT)) == CHECKPOINT',
    'weights.positions': "import torch\nassert positions('pos_embed', torch.ones(1, 197, 8)) == 14",
    'weights.strict_load': MODEL + "strict_load(model, model.state_dict(), 'a')",
    'weights_tool.list_weights': ARGS + "list_weights(args('list', 'volo'))",
    'weights_tool.fetch_weights': ARGS + REFUSED + "refused(fetch_weights, args('fetch', 'volo_d4_cityscapes'))",
    'weights_tool.convert': ARGS + "convert(args('convert', CHECKPOINT, 'a.safetensors'))",
    'weights_tool.check': ARGS + "check(args('check', CHECKPOINT))",
    'zoo.available': 'assert len(available()) > 40',
    'zoo.size': "assert size('CAFormer', 's18')[0] > 2e7",
    'zoo.write_table': "import pathlib\nfrom mmseg_volo import zoo\nzoo.table = lambda: 'new'\n"
    "page = pathlib.Path('page.md')\npage.write_text(f'{zoo.START}{zoo.END}')\nwrite_table(page)",
}
NOT_RUN = {  # with the reason
    'demo.demo': 'trains for minutes: make demo, and tests of its parts',
    'folders.memory.fitting_batch': 'needs a GPU',
    'model_zoo.write': 'writes the page of a checkout: `page` and `metafile` make it',
    'transfer.download': 'needs the network: tests/test_download.py has a server',
    'zoo.table': 'counts every variant, for a minute: `size` counts one',
}
