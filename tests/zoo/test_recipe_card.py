"""Recipe cards as data."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmseg_volo.errors import UsageError
from mmseg_volo.zoo.cost import PEAK, SHARE, Cost
from mmseg_volo.zoo.recipe_card import Card, read_card, write_estimate


def config(folder: Path, card: str) -> Path:
    path = folder / 'mine.py'
    path.write_text(f'"""Mine.\n\nRecipe: ours. Ours: all of it.\nCommand: none\n{card}\n"""\n\ncrop_size = (1, 1)\n')
    return path


def test_fields_are_read_over_lines(tmp_path: Path) -> None:
    card = read_card(config(tmp_path, 'Cost: an hour\n  of mine.\nPublished: none. Ours: 52.0 mIoU on\n  few frames.'))
    assert card == Card('an hour of mine', 'none', '52.0 mIoU on few frames')
    assert card.miou is None and card.estimate is None


@pytest.mark.parametrize(
    ('text', 'miou'),
    [
        ('48.1 mIoU single scale, 48.9 multi-scale [third party]', ('48.1', '48.9', '[third party]')),
        ('84.3 mIoU, multi-scale (arXiv 1, abstract)', ('', '84.3', 'arXiv 1, abstract')),
        ('no number for D3', None),
    ],
)
def test_published_results(text: str, miou: tuple | None, tmp_path: Path) -> None:
    assert read_card(config(tmp_path, f'Cost: none.\nPublished: {text}. Ours: not trained by us.')).miou == miou


@pytest.mark.parametrize(
    ('card', 'message'),
    [
        ('Published: none. Ours: none.', 'Cost:, Published: and Ours: in this order'),
        ('Cost: none.\nPublished: 84.3 somewhere. Ours: none.', "got '84.3 somewhere'"),
    ],
)
def test_a_card_of_another_form_is_refused(card: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_card(config(tmp_path, card))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    first, rest = (
        'Cost: estimated 1 h,\n      whatever; not measured.',
        ' We know more.\n      Much more.\nPublished: none. Ours: none.',
    )
    path = config(tmp_path, first + rest)
    before = path.read_text()
    for hours in (0.26, 9.94, 9.96, 123.4):
        text = str(Cost(4, 3600, round(hours * SHARE * PEAK), 2.5 * 2**30))
        assert len(f'Cost: {text}') <= 120
        assert write_estimate(path, text)
        assert path.read_text() == before.replace(first, f'Cost: {text}')
        found = read_card(path).estimate
        assert found[1:] == (4, 'A100', 3) and found[0] == pytest.approx(hours, abs=0.05 if hours < 9.95 else 0.5)


def test_a_measured_cost_stays(tmp_path: Path) -> None:
    path = config(tmp_path, 'Cost: 16 minutes; not measured. Ours\nPublished: none. Ours: none.')
    before = path.read_text()
    assert not write_estimate(path, 'estimated 1 h; not measured.')
    assert path.read_text() == before
