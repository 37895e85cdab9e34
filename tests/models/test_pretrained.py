"""The README's table of backbones is complete, up to date, and names weights that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from helpers.paths import ROOT

from mmseg_volo.models import backbones
from mmseg_volo.models import pretrained as zoo
from mmseg_volo.zoo import backbone_table


def test_no_variant_is_missing() -> None:
    assert zoo.ARCHS.keys() == zoo.PUBLISHED.keys() == set(backbones.__all__)
    for family, archs in zoo.ARCHS.items():
        assert archs.keys() == zoo.PUBLISHED[family].keys()


def test_readme_is_up_to_date() -> None:
    shown = (ROOT / 'README.md').read_text().split(backbone_table.START)[1].split(backbone_table.END)[0]
    assert shown.strip() == backbone_table.table(), 'run python tools/backbone_table.py'


def test_weights_belong_to_their_variant() -> None:
    for family, rows in zoo.PUBLISHED.items():
        for arch, row in rows.items():
            name = row.weights.split('/')[-1]
            if row.weights.startswith('timm://'):
                assert timm.get_pretrained_cfg(name, allow_unregistered=False).hf_hub_id
                assert name.startswith(f'{family.lower()}_{arch}')
            elif family == 'T2TViT':
                assert name.endswith(f'_T2T_ViT{arch if arch.startswith("t_") else "_" + arch}.pth.tar')
            elif row.weights != zoo.NO_WEIGHTS:
                assert name == f'{family.lower()}_{arch}.pth'


def test_writing_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / 'README.md'
    readme.write_text(f'above\n{backbone_table.START}\nold\n{backbone_table.END}\nbelow\n')
    monkeypatch.setattr(backbone_table, 'table', lambda: 'new')
    backbone_table.write_table(readme)
    assert readme.read_text() == f'above\n{backbone_table.START}\nnew\n{backbone_table.END}\nbelow\n'


def test_t2t_vits_gmacs_are_the_authors_but_one() -> None:
    """yitu-opensource/T2T-ViT prints 13.8 for 24: not what its other rows, or the layers that differ, come to."""
    official = {'7': 1.1, '10': 1.5, '12': 1.8, '14': 4.8, '19': 8.5, 't_14': 6.1, 't_19': 9.8, 't_24': 15.0}
    ours = {arch: zoo.backbone_size('T2TViT', arch)[1] for arch in zoo.ARCHS['T2TViT']}
    assert {arch: round(ours[arch], 1) for arch in official} == official
    for arch in ('14', '19', '24'):  # by the first layers alone, which are the same in all
        assert ours[f't_{arch}'] - ours[arch] == pytest.approx(1.305, abs=1e-3)
    tokens, dim, width = 14 * 14 + 1, 512, 3 * 512
    block = tokens * (4 * dim * dim + 2 * dim * width) + 2 * tokens * tokens * dim
    assert ours['24'] == pytest.approx(13.66, abs=0.005) and 24 * block / 1e9 == pytest.approx(13.35, abs=0.005)
