"""The table of all backbones in the README."""

from __future__ import annotations

from pathlib import Path

from mmseg_volo.models.pretrained import ARCHS, PUBLISHED, backbone_size

START, END = '<!-- backbones: tools/backbone_table.py writes this -->', '<!-- /backbones -->'


def table() -> str:
    """All variants as a Markdown table."""
    lines = [
        '| `type` | `arch` | parameters (M) | GMACs | top-1 | weights | top-1 and weights from |',
        '|' + '---|' * 7,
    ]
    for family, archs in ARCHS.items():
        for arch in archs:
            params, gmacs = backbone_size(family, arch)
            top1, weights, source = PUBLISHED[family][arch]
            link = f'[{Path(weights).name}]({weights})' if weights.startswith('https') else weights
            cell = f'`{link}`' if link.startswith('timm') else link
            lines.append(f'| {family} | {arch} | {params / 1e6:.1f} | {gmacs:.1f} | {top1} | {cell} | {source} |')
    return '\n'.join(lines)


def write_table(readme: Path) -> None:
    """Replaces what stands between the marks in the README."""
    text = readme.read_text()
    before, rest = text.split(START)
    readme.write_text(f'{before}{START}\n{table()}\n{END}{rest.split(END)[1]}')
