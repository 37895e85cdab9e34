"""Results and costs as data, and the recipe cards, which end with the same facts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mmseg_volo.config import CONFIGS, shipped_configs
from mmseg_volo.zoo.cost import PEAK, SHARE, Cost
from mmseg_volo.zoo.results import (
    NOT_TRAINED,
    CostEstimate,
    OwnResult,
    PublishedResult,
    Results,
    read_results,
    write_estimate,
)

ENTRY = """# whose it is

mine:
  published: {single_scale: 48.1, multi_scale: 48.9, source: '[third party]'}
  ours: null
  cost: {hours: 1.0, gpus: 2, memory: 3}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / 'results.yml').write_text(ENTRY)
    return tmp_path / 'results.yml'


def config(folder: Path, card: str) -> Path:
    path = folder / 'mine.py'
    path.write_text(f'"""Mine.\n\nRecipe: ours. Ours: all of it.\nCommand: none\n{card}\n"""\n\ncrop_size = (1, 1)\n')
    return path


def test_every_config_has_results_and_nothing_else_has() -> None:
    assert [*read_results()] == shipped_configs()


@pytest.mark.parametrize('name', shipped_configs())
def test_a_card_ends_with_the_data(name: str) -> None:
    """Its numbers are those of the data, word for word; the fields stand in this order, each on a line of its own."""
    docstring = re.match(r'"""(.*?)"""', (CONFIGS / f'{name}.py').read_text(), re.S)[1]
    assert ' '.join(docstring.split()).endswith(f' {read_results()[name].card}')
    assert re.search(r'^Cost: .*^Published: .*\bOurs: ', docstring, re.M | re.S)
    assert len(re.findall('^(?:Cost|Published): ', docstring, re.M)) == 2


def test_fields_are_read(data: Path) -> None:
    published = PublishedResult('[third party]', 48.1, 48.9)
    assert read_results(data) == {'mine': Results(published, OwnResult(NOT_TRAINED), CostEstimate(1.0, 2, 3))}


def test_a_field_of_another_name_is_refused(data: Path) -> None:
    data.write_text(ENTRY.replace('multi_scale', 'multiscale'))
    with pytest.raises(TypeError, match='multiscale'):
        read_results(data)


@pytest.mark.parametrize(
    ('result', 'text'),
    [
        (PublishedResult('[third party]', 48.1, 48.9), '48.1 mIoU single scale, 48.9 multi-scale [third party]'),
        (PublishedResult('arXiv 1, abstract', None, 84.3), '84.3 mIoU, multi-scale (arXiv 1, abstract)'),
        (PublishedResult('no number for D3'), 'no number for D3'),
        (CostEstimate(10.0, 4, 9, 'They took a day.'), f'{CostEstimate(10.0, 4, 9)}. They took a day'),
        (OwnResult('on few frames', 52.0), '52.0 mIoU on few frames'),
        (OwnResult(NOT_TRAINED), 'not trained by us'),
    ],
)
def test_results_in_words(result: PublishedResult | OwnResult | CostEstimate, text: str) -> None:
    assert str(result) == text


def test_what_is_written_is_what_is_read(data: Path) -> None:
    first, rest = (
        f'Cost: {CostEstimate(1.0, 2, 3).sentence}',
        ' We know more.\n      Much more.\nPublished: none. Ours: none.',
    )
    path = config(data.parent, first + rest)
    before = path.read_text()
    for hours in (0.26, 9.94, 9.96, 123.4):
        estimate = Cost(4, 3600, round(hours * SHARE * PEAK), 2.5 * 2**30).rounded
        assert len(f'Cost: {estimate.sentence}') <= 120
        assert write_estimate(path, estimate, data)
        assert path.read_text() == before.replace(first, f'Cost: {estimate.sentence}')
        assert read_results(data)['mine'].cost == estimate == CostEstimate(estimate.hours, 4, 3)
        assert estimate.hours == pytest.approx(hours, abs=0.05 if hours < 9.95 else 0.5)
    content = yaml.safe_load(ENTRY)
    content['mine']['cost'] = dict(hours=123.0, gpus=4, memory=3)
    assert yaml.safe_load(data.read_text()) == content and data.read_text().startswith(ENTRY.split('mine')[0])


@pytest.mark.parametrize('cost', ['16 minutes; not measured', 'estimated 7 h'])
def test_a_card_that_states_another_cost_stays(cost: str, data: Path) -> None:
    path = config(data.parent, f'Cost: {cost}.\nPublished: none. Ours: none.')
    before = path.read_text()
    assert not write_estimate(path, CostEstimate(5.0, 2, 3), data)
    assert path.read_text() == before and data.read_text() == ENTRY


def test_a_measured_cost_stays(data: Path) -> None:
    data.write_text(ENTRY.replace('{hours: 1.0, gpus: 2, memory: 3}', '16 minutes'))
    path = config(data.parent, 'Cost: 16 minutes.\nPublished: none. Ours: none.')
    before = path.read_text()
    assert not write_estimate(path, CostEstimate(5.0, 2, 3), data)
    assert path.read_text() == before
