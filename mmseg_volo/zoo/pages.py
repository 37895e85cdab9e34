"""Write the page of all shipped configs, `docs/model_zoo.md`, and the index that OpenMMLab's tools read.

Results and costs come from `results.yml`, everything else from the configs; sizes are counted on the meta device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from mmengine.config import Config
from torch.utils.flop_counter import FlopCounterMode

from mmseg_volo.config import CONFIGS, load_config, shipped_configs
from mmseg_volo.zoo.cost import build_on_meta
from mmseg_volo.zoo.results import GPU, SHARE, CostEstimate, Results, read_results

HEADS = {'LeanUPerHead': 'UPerNet', 'LeanSegformerHead': 'SegFormer'}
DATASETS = {'cityscapes': 'Cityscapes', 'ade20k': 'ADE20K', 'camvid': 'CamVid', 'demo': 'demo scenes'}  # by base config
METAFORMER = ('MetaFormer Baselines for Vision', 'https://arxiv.org/abs/2210.13452')
PAPERS = {
    'VOLO': ('VOLO: Vision Outlooker for Visual Recognition', 'https://arxiv.org/abs/2106.13112'),
    'CAFormer': METAFORMER,
    'ConvFormer': METAFORMER,
    'T2TViT': (
        'Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet',
        'https://arxiv.org/abs/2101.11986',
    ),
    'CoAtNet': (
        'CoAtNet: Marrying Convolution and Attention for All Data Sizes',
        'https://arxiv.org/abs/2106.04803',
    ),
}
COLUMNS = ['config', 'backbone', 'head', 'crop', 'batch', 'iterations', 'parameters (M)', 'GMACs', 'starts from']
COLUMNS += ['published', 'from', 'ours', 'cost']
HEADER = f"""# Model zoo

Every shipped config. `python tools/model_zoo.py` writes this page and `configs/metafile.yml` from the configs and
`mmseg_volo/zoo/results.yml`; the configs' docstrings, the recipe cards, say more; `tests/zoo/test_pages.py` checks it.

- **Parameters**: of the whole model in millions, in brackets without the auxiliary head, which only training has.
- **GMACs**: one image through the model without auxiliary head, at the size in the heading. Papers print 512x2048 for
  ADE20K (1024x1024 are as many pixels), and count mmseg's heads: `LeanUPerHead`, the same function, multiplies less.
- **Published**: mIoU at a single scale / at several with flips, by the backbone's authors, and where it stands. [third
  party]: read in a third party's transcription. These are goals, not results of this code.
- **Ours**: what we trained ourselves.
- **Cost**: unless it says otherwise an estimate, for {GPU} at {100 * SHARE:.0f} % of their bf16 peak, and the memory of
  each: counted, not measured, by `python tools/recipe_cost.py`; `mmseg_volo/zoo/cost.py` says how.
"""


class Size(NamedTuple):
    """Hold the size of a segmentor."""

    parameters: int  # auxiliary head included
    inference: int  # parameters without it
    macs: float  # without it, for one image of `pixels`
    pixels: tuple[int, int]  # height, width


class Model(NamedTuple):
    """Hold a config as the page and the index show it."""

    name: str
    family: str  # `type` of the backbone
    arch: str
    head: str
    dataset: str
    crop: tuple[int, int]
    batch: int  # images per update
    iterations: int
    size: Size
    weights: str | None  # that training starts from
    results: Results


def model_size(cfg: Config) -> Size:
    """Count parameters and multiply-accumulates: at 512x2048 on ADE20K, else at the crop."""
    pixels = (512, 2048) if cfg.train_dataloader.dataset.type == 'ADE20KDataset' else tuple(cfg.crop_size)
    model = build_on_meta(cfg).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.decode_head(model.extract_feat(torch.empty(1, 3, *pixels, device='meta')))
    parameters = sum(p.numel() for p in model.parameters())
    auxiliary = sum(p.numel() for p in model.auxiliary_head.parameters()) if model.with_auxiliary_head else 0
    return Size(parameters, parameters - auxiliary, counter.get_total_flops() / 2, pixels)


def describe(name: str, size: Size | None = None) -> Model:
    """Describe a shipped config with its results; its size is counted if it is not given."""
    path = CONFIGS / f'{name}.py'
    cfg, text = load_config(path), path.read_text()
    backbone = cfg.model.backbone
    return Model(
        name,
        backbone.type,
        backbone.arch if isinstance(backbone.arch, str) else '(own sizes)',
        HEADS[cfg.model.decode_head.type],
        next(title for base, title in DATASETS.items() if f'_base_/datasets/{base}.py' in text),
        tuple(cfg.crop_size),
        cfg.auto_scale_lr.base_batch_size,
        cfg.train_cfg.max_iters,
        size or model_size(cfg),
        backbone.init_cfg.checkpoint if backbone.get('init_cfg') else None,
        read_results()[name],
    )


def page(models: Sequence[Model]) -> str:
    """Return `docs/model_zoo.md`, with a table for each data set."""
    sections = [HEADER]
    for dataset in DATASETS.values():
        rows = [m for m in models if m.dataset == dataset]
        sizes = sorted({by(m.size.pixels) for m in rows})
        sections.append(f'## {dataset}\n\nGMACs at {", ".join(sizes)}.\n')
        lines = [f'| {" | ".join(COLUMNS)} |', '|' + '---|' * len(COLUMNS), *map(_line, rows)]
        sections.append('\n'.join(lines) + '\n')
    return '\n'.join(sections)


def by(size: tuple[int, int]) -> str:
    """Format a size as height x width."""
    return 'x'.join(map(str, size))


def _line(m: Model) -> str:
    size = f'{m.size.parameters / 1e6:.1f}'
    if m.size.inference < m.size.parameters:
        size += f' ({m.size.inference / 1e6:.1f})'
    weights = f'`{m.weights}`' if m.weights else 'random weights'
    if m.weights and m.weights.startswith('https'):
        weights = f'[{Path(m.weights).name}]({m.weights})'
    published, cost = m.results.published, m.results.cost
    single = '–' if published.single_scale is None else f'{published.single_scale:.1f}'
    miou = '' if published.multi_scale is None else f'{single} / {published.multi_scale:.1f}'
    if isinstance(cost, CostEstimate):
        cost = f'{cost.hours:g} h on {cost.gpus} {GPU}, {cost.memory} GB'
    cells = [f'[{m.name}](../configs/{m.name}.py)', f'{m.family} {m.arch}', m.head, by(m.crop), str(m.batch)]
    cells += [f'{m.iterations:,}', size, f'{m.size.macs / 1e9:.1f}', weights, miou, published.source]
    return '| ' + ' | '.join([*cells, str(m.results.ours), cost]) + ' |'


def metafile(models: Sequence[Model]) -> str:
    """Return `configs/metafile.yml` in OpenMMLab's format.

    `Results` holds our own results only, and `Weights` are empty, as we offer none; results that others have published
    are quoted in the metadata.
    """
    families = [family for family in PAPERS if any(m.family == family for m in models)]
    collections = []
    for family in families:
        title, url = PAPERS[family]
        data = [d for d in DATASETS.values() if any((m.family, m.dataset) == (family, d) for m in models)]
        collections.append(
            {
                'Name': family,
                'License': 'Apache License 2.0',
                'Metadata': {'Training Data': data},
                'Paper': {'Title': title, 'URL': url},
                'Frameworks': ['PyTorch'],
            }
        )
    content = {'Collections': collections, 'Models': [_entry(m) for m in models]}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return f'# written by tools/model_zoo.py from the configs and mmseg_volo/zoo/results.yml\n{text}'


def _entry(m: Model) -> dict[str, Any]:
    metadata = {
        'Training Data': m.dataset,
        'Architecture': [f'{m.family} {m.arch}', m.head],
        'Batch Size': m.batch,
        'Iterations': m.iterations,
        'Crop Size': by(m.crop),
        'Parameters': m.size.parameters,
        'Parameters without Auxiliary Head': m.size.inference,
        'GMACs': f'{m.size.macs / 1e9:.1f} at {by(m.size.pixels)}',
        'Starts From': m.weights or 'random weights',
        'Cost': str(m.results.cost),
        'Published by Others': str(m.results.published),
        'Ours': str(m.results.ours),
    }
    return {
        'Name': m.name,
        'In Collection': m.family,
        'Config': f'configs/{m.name}.py',
        'Weights': None,  # MMEngine asks for the key also where it is given a file
        'Metadata': metadata,
        'Results': _results(m),
    }


def _results(m: Model) -> list[dict[str, Any]]:
    """Return our own results; an empty list if there are none."""
    if m.results.ours.miou is None:
        return []
    return [{'Task': 'Semantic Segmentation', 'Dataset': m.dataset, 'Metrics': {'mIoU': m.results.ours.miou}}]


def write(root: Path) -> None:
    """Write the page and the index of all shipped configs into a checkout."""
    models = [describe(name) for name in shipped_configs()]
    (root / 'docs/model_zoo.md').write_text(page(models))
    (root / 'configs/metafile.yml').write_text(metafile(models))
