"""The README's table of backbones is complete, up to date, and names weights that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from conftest import ROOT

from mmseg_volo import backbones, zoo


def test_no_variant_is_missing() -> None:
    assert zoo.ARCHS.keys() == zoo.PUBLISHED.keys() == set(backbones.__all__)
    for family, archs in zoo.ARCHS.items():
        assert archs.keys() == zoo.PUBLISHED[family].keys()


def test_readme_is_up_to_date() -> None:
    shown = (ROOT / 'README.md').read_text().split(zoo.START)[1].split(zoo.END)[0]
    assert shown.strip() == zoo.table(), 'run python tools/backbone_table.py'


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
    readme.write_text(f'above\n{zoo.START}\nold\n{zoo.END}\nbelow\n')
    monkeypatch.setattr(zoo, 'table', lambda: 'new')
    zoo.write_table(readme)
    assert readme.read_text() == f'above\n{zoo.START}\nnew\n{zoo.END}\nbelow\n'
