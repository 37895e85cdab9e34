"""Write the table of all backbones into the README."""

from __future__ import annotations

from pathlib import Path

from mmseg_volo.models.pretrained import ARCHS, PUBLISHED, backbone_size

START, END = '<!-- backbones: tools/backbone_table.py writes this -->', '<!-- /backbones -->'


def table() -> str:
    """Return all variants as a Markdown table."""
    lines = [
        '| `type` | `arch` | parameters (M) | GMACs | top-1 | weights | top-1 and weights from |',
        '|' + '---|' * 7,
    ]
    for family in ARCHS:
        for arch, (top1, weights, source) in PUBLISHED[family].items():
            params, gmacs = backbone_size(family, arch)
            link = f'[{Path(weights).name}]({weights})' if weights.startswith('https') else weights
            cell = f'`{link}`' if link.startswith('timm') else link
            lines.append(f'| {family} | {arch} | {params / 1e6:.1f} | {gmacs:.1f} | {top1} | {cell} | {source} |')
    return '\n'.join(lines)


def write_table(readme: Path) -> None:
    """Replace the table between the markers in the README."""
    text = readme.read_text()
    before, rest = text.split(START)
    readme.write_text(f'{before}{START}\n{table()}\n{END}{rest.split(END)[1]}')
