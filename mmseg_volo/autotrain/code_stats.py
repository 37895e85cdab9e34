"""Sum the statistics of all masks of a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mmseg_volo.autotrain.image_stats import ImageStats
from mmseg_volo.datasets.mask_codes import GONE, format_code

SHOWN = 8
USUAL = (255, 65535, (1 << 31) - 1, (1 << 32) - 1)  # values that conventionally mean 'ignored'


@dataclass(frozen=True)
class CodeStats:
    """Codes of a kind (see `mask_codes.py`) in all masks, and where they lie."""

    kind: str
    pixels: Counter[int]  # code -> pixels with data
    cores: Counter[int]  # code -> pixels inside its areas
    borders: Counter[int]  # code -> pixels between two others, in masks where it has no areas
    nodata: frozenset[int]  # nodata values of the files
    lossy: bool  # whether a mask was compressed with a loss
    gone: int  # pixels without data
    apart: frozenset[int] = (
        frozenset()
    )  # values of `USUAL` in several masks of at most one, always the same, other code

    def share(self, *codes: int) -> float:
        """Return the share of these codes in all pixels with data."""
        return sum(self.pixels[code] for code in codes) / max(1, sum(self.pixels.values()))

    def some(self, codes: Sequence[int]) -> str:
        """Format the first of some codes."""
        return '; '.join(format_code(code, self.kind) for code in codes[:SHOWN]) + '; ...' * (len(codes) > SHOWN)

    def naming(self, codes: Sequence[int]) -> str:
        """Return a `--classes` option that names these codes; a template for fewer than two."""
        words = [f'class_{name.replace(",", "_")}={name}' for name in (format_code(code, self.kind) for code in codes)]
        words = words if len(words) > 1 else [f'NAME={"R,G,B" if self.kind == "colours" else "VALUE"}', '...']
        return ' '.join(['--classes', *words[:SHOWN], *['...'] * (len(words) > SHOWN)])


def code_stats(facts: Sequence[ImageStats], kind: str) -> CodeStats:
    """Sum the statistics of masks by the codes of a kind."""
    pixels, cores, borders = Counter[int](), Counter[int](), Counter[int]()
    for fact in facts:
        pixels.update(fact.counts_as(kind))
        cores.update(fact.counts_as(kind, fact.cores))
        borders.update(fact.counts_as(kind, fact.borders))
    gone = pixels.pop(GONE, 0)
    apart = frozenset(code for code in USUAL if pixels[code] and _is_apart(code, facts, kind))
    nodata = frozenset(fact.nodata for fact in facts if fact.nodata is not None)
    return CodeStats(kind, pixels, cores, borders, nodata, any(fact.lossy for fact in facts), gone, apart)


def _is_apart(code: int, facts: Sequence[ImageStats], kind: str) -> bool:
    """Whether several masks hold a value, and at most one other, the same in all."""
    held = [codes for fact in facts if code in (codes := fact.counts_as(kind))]
    return len(held) > 1 and len({other for codes in held for other in codes} - {code, GONE}) < 2
