"""What calls each public function of our packages, for `test_fresh_process.py`: name -> source."""

from __future__ import annotations

from helpers.fresh_given import AS_DATA, IMAGE, IMAGES, METAFORMERS, MODEL, PIXELS, REFUSED, SETS, TINY, WISHES

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
    'datasets.FastPhotoMetricDistortion': PIXELS + 'assert FastPhotoMetricDistortion()(dict(img=image))',
    'datasets.check.config.all_files': AS_DATA + "assert [*all_files(cfg, ['val_dataloader'])] == ['val_dataloader']",
    'datasets.check.config.check_config': AS_DATA + "check_config(cfg, 1, 'report.json')",
    'datasets.check.config.check_data': AS_DATA
    + "assert check_data(cfg, ['val_dataloader'], True)['notes'] is not None",
    'datasets.check.config.check_files': AS_DATA + "assert check_files(Config(dataset), 'val') > 0",
    'datasets.check.config.files_of': AS_DATA + "assert len(files_of(Config(dataset), 'val')[0].pairs) > 0",
    'datasets.check.config.write_report_file': "import pathlib\nwrite_report_file({}, pathlib.Path('kept.json'))",
    'datasets.check.config.refuse_output_in_data': REFUSED
    + AS_DATA
    + 'refuse_output_in_data(dataset, "elsewhere", "--out")\n'
    'refused(refuse_output_in_data, dataset, f"{SHAPES}/images/out", "--out")',
    'datasets.check.config.classes_by_value': 'item = dict(label_map=None, reduce_zero_label=False)\n'
    "assert 1 in classes_by_value(item, 'ab', 255)",
    'datasets.check.config.reader_of': AS_DATA
    + "assert reader_of(object(), dict(label_map=None, reduce_zero_label=False), 'ab')",
    'datasets.check.config.cache_report': SETS + 'import os\nos.environ["TORCH_HOME"] = "home"\ncache_report({}, sets)',
    'datasets.check.config.cached_report': SETS + "assert cached_report(sets)['faults'] == {}",
    'datasets.prepare.prepare.check_splits': 'import pathlib\n'
    'from mmseg_volo.datasets.prepare.layouts import LAYOUTS, find_splits\n'
    "layout, root = LAYOUTS['cityscapes'], pathlib.Path(DATA)\n"
    'assert check_splits(layout, root, find_splits(layout, root), 1)',
    'cli.prepare.main': "assert main(['camvid', 'nowhere']) == 2",
    'datasets.prepare.prepare.prepare_dataset': REFUSED
    + "try:\n    prepare_dataset('camvid', 'nowhere')\nexcept FileNotFoundError: pass",
    'datasets.synthetic.scenes.generate': "assert generate('scenes', 1, 1, 32, 32).is_dir()",
    'datasets.synthetic.scenes.scene': 'assert scene(1, 40, 50)[1].shape == (40, 50)',
    'utils.text.format_ranges': "assert format_ranges([0, 1, 255]) == '0 to 1 and 255'",
    'utils.parallel.map_parallel': 'from concurrent.futures import ThreadPoolExecutor\n'
    "assert [*map_parallel(ThreadPoolExecutor(1), abs, [(-1,)], 'a')] == [((-1,), 1)]",
    'utils.parallel.prefetch': 'assert [*prefetch([1, 2])] == [1, 2]',
    'utils.text.format_table': "assert format_table([('a', 1)])",
    'datasets.check.survey.raise_if_faulty': 'raise_if_faulty(dict(faults={}))',
    'datasets.check.survey.build_report': SETS + 'from mmseg_volo.datasets.check.files import DatasetStats\n'
    'assert build_report(sets, {role: DatasetStats() for role in sets}, {}, [])',
    'datasets.check.survey.format_report': SETS
    + 'from mmseg_volo.datasets.check.survey import scan\nassert format_report(scan(sets, 1))',
    'datasets.check.survey.scan': SETS + "assert scan(sets, 1)['faults'] == {}",
    'engine.AveragePerUpdateHook': 'assert AveragePerUpdateHook()',
    'engine.CpuAmpOptimWrapper': 'import torch\nparameters = [torch.zeros(1, requires_grad=True)]\n'
    'assert CpuAmpOptimWrapper(optimizer=torch.optim.SGD(parameters, 0.1))',
    'datasets.ResumableInfiniteSampler': 'assert '
    'len([draw for draw, _ in zip(ResumableInfiniteSampler(range(4), seed=0), range(4))]) == 4',
    'engine.NonFiniteGuardHook': 'assert NonFiniteGuardHook(tries=2)',
    'engine.ResumableEarlyStoppingHook': "assert ResumableEarlyStoppingHook(monitor='mIoU')",
    'engine.AverageLogsHook': 'assert AverageLogsHook()',
    'engine.MuonAdamW': 'import torch\nassert MuonAdamW([torch.zeros(2, 2, requires_grad=True)])',
    'engine.OverlayHook': "assert OverlayHook(out_dir='out')",
    'engine.FaultTolerantMLflow': "assert FaultTolerantMLflow('out')",
    'engine.FaultTolerantTensorboard': "assert FaultTolerantTensorboard('out')",
    'engine.FaultTolerantVisBackend': "assert FaultTolerantVisBackend('out')",
    'engine.FaultTolerantWandb': "assert FaultTolerantWandb('out')",
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
    'engine.GracefulStopHook': 'assert GracefulStopHook()',
    'engine.TestScoresHook': 'assert TestScoresHook()',
    'engine.init_cfg.load_from_mmseg_volo': "assert load_from_mmseg_volo(f'mmseg_volo://{CHECKPOINT}')['state_dict']",
    'engine.init_cfg.load_init_cfg_safely': MODEL + 'load_init_cfg_safely(model)',
    'engine.init_cfg.pop_whole_init_cfg': MODEL + 'assert pop_whole_init_cfg(model) is None',
    'engine.init_cfg.drop_init_cfg': MODEL + 'drop_init_cfg(model)',
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
    'datasets.LoadMultiBandImage': 'assert '
    "LoadMultiBandImage([0] * 5, [1] * 5)(dict(img_path=BANDS))['img'].shape[2] == 5",
    'datasets.LoadMask': 'assert LoadMask()({}) == {}',
    'io.multiband.array_of': "assert array_of(open(BANDS, 'rb').read())[0].shape[2] == 5",
    'io.multiband.to_picture': 'assert to_picture(BANDS).shape[2] == 3',
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
    'autotrain.run.write_training_recipe': WISHES + 'assert write_training_recipe(wishes).is_file()',
    'autotrain.run.print_best_checkpoint': WISHES + 'print_best_checkpoint(wishes)',
    'autotrain.run.inspect_folder': WISHES + 'assert inspect_folder(wishes).splits',
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
    'models.segmentors.StreamingEncoderDecoder': AS_DATA + 'assert StreamingEncoderDecoder(**parts)',
    'models.segmentors.StreamingTTA': AS_DATA + 'from mmengine.registry import DefaultScope\n'
    "with DefaultScope.overwrite_default_scope('mmseg'):\n    assert StreamingTTA(module=cfg.model)",
    'models.segmentors.masks_only': MODEL + 'with masks_only(model):\n    assert not model.keeps_logits',
}
