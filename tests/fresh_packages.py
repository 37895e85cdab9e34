"""What calls each public function of our packages, for `test_fresh_process.py`: name -> source."""

from __future__ import annotations

from fresh_given import AS_DATA, IMAGE, IMAGES, METAFORMERS, MODEL, PIXELS, REFUSED, SETS, TINY, WISHES

EXPRESSIONS = {
    'models.backbones.CoAtNet': IMAGE + 'arch = dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32], stem_width=[8, 8], '
    'dim_head=8)\nassert len(CoAtNet(arch)(image)) == 4',
    'models.backbones.T2TViT': IMAGE
    + 'assert len(T2TViT(dict(depths=[2, 1], dim=32, num_heads=2, token_dim=8))(image)) == 4',
    'models.backbones.VOLO': IMAGE + 'arch = dict(depths=[1, 1, 1, 1], dims=[16, 32, 32, 32], num_heads=[2, 4, 4, 4], '
    'stem_dim=8)\nassert len(VOLO(arch, pretrain_img_size=64)(image)) == 4',
    **{f'models.backbones.{name}': IMAGE + f'assert len({name}({TINY})(image)) == 4' for name in METAFORMERS},
    'datasets.CamVidDataset': "assert len(CamVidDataset(data_root=DATA, img_suffix='.png', "
    "data_prefix=dict(img_path='leftImg8bit/val'))) == 2",
    'datasets.ContiguousRandomFlip': 'assert ContiguousRandomFlip(prob=1.0)',
    'datasets.LoadRandomCrop': 'assert LoadRandomCrop((64, 64), (1.0, 2.0), (32, 32))',
    'datasets.TablePhotoMetricDistortion': PIXELS + 'assert TablePhotoMetricDistortion()(dict(img=image))',
    'datasets.check.config.all_files': AS_DATA + "assert [*all_files(cfg, ['val_dataloader'])] == ['val_dataloader']",
    'datasets.check.config.check_config': AS_DATA + "check_config(cfg, 1, 'report.json')",
    'datasets.check.config.check_data': AS_DATA
    + "assert check_data(cfg, ['val_dataloader'], True)['notes'] is not None",
    'datasets.check.config.check_files': AS_DATA + "assert check_files(Config(dataset), 'val') > 0",
    'datasets.check.config.files_of': AS_DATA + "assert len(files_of(Config(dataset), 'val')[0].pairs) > 0",
    'datasets.check.config.keep': "import pathlib\nkeep({}, pathlib.Path('kept.json'))",
    'datasets.check.config.keep_apart': REFUSED
    + AS_DATA
    + 'keep_apart(dataset, "elsewhere", "--out")\nrefused(keep_apart, dataset, f"{SHAPES}/images/out", "--out")',
    'datasets.check.config.meanings': 'item = dict(label_map=None, reduce_zero_label=False)\n'
    "assert 1 in meanings(item, 'ab', 255)",
    'datasets.check.config.reading': AS_DATA
    + "assert reading(object(), dict(label_map=None, reduce_zero_label=False), 'ab')",
    'datasets.check.config.remember': SETS + 'import os\nos.environ["TORCH_HOME"] = "home"\nremember({}, sets)',
    'datasets.check.config.remembered': SETS + "assert remembered(sets)['faults'] == {}",
    'datasets.prepare.prepare.look': 'import pathlib\nfrom mmseg_volo.datasets.prepare.layouts import LAYOUTS, find\n'
    "layout = LAYOUTS['cityscapes']\nassert look(layout, pathlib.Path(DATA), find(layout, pathlib.Path(DATA)), 1)",
    'datasets.prepare.prepare.main': "assert main(['camvid', 'nowhere']) == 2",
    'datasets.prepare.prepare.prepare': REFUSED
    + "try:\n    prepare('camvid', 'nowhere')\nexcept FileNotFoundError: pass",
    'datasets.synthetic.scenes.generate': "assert generate('scenes', 1, 1, 32, 32).is_dir()",
    'datasets.synthetic.scenes.scene': 'assert scene(1, 40, 50)[1].shape == (40, 50)',
    'utils.text.format_ranges': "assert format_ranges([0, 1, 255]) == '0 to 1 and 255'",
    'utils.parallel.map_parallel': 'from concurrent.futures import ThreadPoolExecutor\n'
    "assert [*map_parallel(ThreadPoolExecutor(1), abs, [(-1,)], 'a')] == [((-1,), 1)]",
    'utils.parallel.prefetch': 'assert [*prefetch([1, 2])] == [1, 2]',
    'utils.text.format_table': "assert format_table([('a', 1)])",
    'datasets.check.survey.complain': 'complain(dict(faults={}))',
    'datasets.check.survey.judge': SETS + 'from mmseg_volo.datasets.check.files import Tally\n'
    'assert judge(sets, {role: Tally() for role in sets}, {}, [])',
    'datasets.check.survey.summary': SETS
    + 'from mmseg_volo.datasets.check.survey import survey\nassert summary(survey(sets, 1))',
    'datasets.check.survey.survey': SETS + "assert survey(sets, 1)['faults'] == {}",
    'engine.AveragePerUpdateHook': 'assert AveragePerUpdateHook()',
    'engine.CpuAmpOptimWrapper': 'import torch\nparameters = [torch.zeros(1, requires_grad=True)]\n'
    'assert CpuAmpOptimWrapper(optimizer=torch.optim.SGD(parameters, 0.1))',
    'datasets.DrawSampler': 'assert len([draw for draw, _ in zip(DrawSampler(range(4), seed=0), range(4))]) == 4',
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
    'engine.init_cfg.load_from_mmseg_volo': "assert load_from_mmseg_volo(f'mmseg_volo://{CHECKPOINT}')['state_dict']",
    'engine.init_cfg.starts_as_data': MODEL + 'starts_as_data(model)',
    'engine.init_cfg.take_start': MODEL + 'assert take_start(model) is None',
    'engine.init_cfg.without_starts': MODEL + 'without_starts(model)',
    'evaluation.MaskFiles': "assert MaskFiles('out')",
    'evaluation.SegIoUMetric': "assert SegIoUMetric(iou_metrics=['mIoU'])",
    'evaluation.mask_writer.class_values': "assert class_values(dict(classes='ab')).tolist() == [0, 1]",
    'evaluation.mask_writer.format_only': AS_DATA
    + "format_only(cfg, 'masks')\nassert cfg.test_evaluator.type == 'MaskFiles'",
    'evaluation.mask_writer.without_labels': AS_DATA + 'assert len(without_labels(steps)) == 2',
    'evaluation.mask_writer.write_mask': PIXELS
    + "import pathlib\nassert write_mask(pathlib.Path(), 'a.jpg', mask) == 'a.png'",
    'datasets.FolderDataset': AS_DATA
    + 'dataset.pop("type")\ndataset.pop("pipeline")\nassert len(FolderDataset(**dataset))',
    'datasets.LoadBands': "assert LoadBands([0] * 5, [1] * 5)(dict(img_path=BANDS))['img'].shape[2] == 5",
    'datasets.LoadMask': 'assert LoadMask()({}) == {}',
    'io.multiband.array_of': "assert array_of(open(BANDS, 'rb').read())[0].shape[2] == 5",
    'io.multiband.as_picture': 'assert as_picture(BANDS).shape[2] == 3',
    'io.multiband.is_plain': 'import pathlib\nassert is_plain(pathlib.Path(IMAGE))',
    'io.multiband.read_bands': 'assert read_bands(BANDS)[0].shape[2] == 5',
    'io.multiband.sums_of': 'import numpy\nones = numpy.ones((2, 2, 3))\nassert sums_of(ones, ones > 0).all()',
    'datasets.image_folder.image_size': 'import pathlib\nassert image_size(pathlib.Path(IMAGE)) == ((128, 64), False)',
    'autotrain.batch_size.check_disk': AS_DATA + "import pathlib\nassert check_disk(cfg, pathlib.Path('work')) > 0",
    'autotrain.recipe.absolute': "assert absolute('a').startswith('/')",
    'autotrain.recipe.class_weights': 'assert class_weights([1, 1]) is None',
    'autotrain.recipe.crop_of': IMAGES + 'assert crop_of(images, [64]) == (64, 64)',
    'autotrain.recipe.is_shipped': "assert is_shipped('volo_demo') and not is_shipped('volo_d1')",
    'autotrain.recipe.length_of': 'assert length_of(10, 2, 1, False) == 5',
    'autotrain.recipe.model_words': AS_DATA + 'assert model_words(cfg)',
    'autotrain.recipe.recipe': IMAGES + "assert recipe('caformer_s18', start, images, (64, 64), 2, 10, 5)['model']",
    'autotrain.recipe.set_length': IMAGES + 'from mmseg_volo.autotrain.recipe import recipe\n'
    "set_length(recipe('caformer_s18', start, images, (64, 64), 2, 10, 5), 20)",
    'autotrain.recipe.shipped': "assert shipped('volo_demo', None, None)['model']",
    'autotrain.recipe.started_from': 'assert started_from(dict(backbone={})) is None',
    'autotrain.run.prepare_training': WISHES + 'assert prepare_training(wishes).is_file()',
    'autotrain.run.say_best': WISHES + 'say_best(wishes)',
    'autotrain.run.understand_folder': WISHES + 'assert understand_folder(wishes).splits',
    'models.decode_heads.LeanSegformerHead': AS_DATA + 'head.pop("type")\nassert LeanSegformerHead(**head)',
    'models.decode_heads.LeanUPerHead': 'assert LeanUPerHead(in_channels=[8, 8], in_index=[0, 1], channels=8, '
    "num_classes=3, loss_decode=dict(type='WeightedCrossEntropy', class_weight=[1.0, 2.0, 3.0]))",
    'inference.OUTPUTS': "assert 'masks' in OUTPUTS",
    'inference.Options': 'assert Options().outputs',
    'inference.sources.find_inputs': "import pathlib\nassert find_inputs([IMAGE], pathlib.Path('out'))",
    'inference.sources.real_path': "import pathlib\nassert real_path(pathlib.Path('a/../b')).endswith('/b')",
    'inference.predict_files': MODEL + "assert len(predict_files(model, [IMAGE], 'out')) == 2",
    'models.losses.WeightedCrossEntropy': 'assert WeightedCrossEntropy(class_weight=[1.0, 2.0])',
    'models.necks.StridePyramid': 'assert StridePyramid([8, 8, 8, 8], [8, 16, 16, 16])',
    'report.write_report': "import pathlib\npathlib.Path('work').mkdir()\n" + REFUSED + "refused(write_report, 'work')",
    'models.segmentors.BandedEncoderDecoder': AS_DATA + 'assert BandedEncoderDecoder(**parts)',
    'models.segmentors.RunningTTA': AS_DATA + 'from mmengine.registry import DefaultScope\n'
    "with DefaultScope.overwrite_default_scope('mmseg'):\n    assert RunningTTA(module=cfg.model)",
    'models.segmentors.masks_only': MODEL + 'with masks_only(model):\n    assert not model.keeps_logits',
}
