"""`mmseg-volo predict`: kinds of outputs, going on where it stopped, options."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.predicting import command, times
from helpers.tiny_training import predictor

import mmseg_volo
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.inference import OUTPUTS, Options, predict_files
from mmseg_volo.inference import files as run
from mmseg_volo.inference.sources import find_inputs
from mmseg_volo.utils.parallel import COUNT, WriteBehind, prefetch
from mmseg_volo.visualization import colour_mask
from mmseg_volo_cli import main

PIXELS = [name for name in OUTPUTS if name != 'polygons']  # what needs no optional package


def test_every_kind_says_what_the_model_says(model: torch.nn.Module, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    written = predict_files(model, [str(photos)], out, Options(PIXELS))
    assert len(written) == 3 * (len(PIXELS) - 1) and all(path.is_file() for path in written)
    rows = [*csv.DictReader((out / 'areas.csv').open())]
    for name in ('a.png', 'b.png', 'deep/a.jpg'):
        stem = name.split('.')[0]
        found = mmseg_volo.predict(model, photos / name, ['confidence', 'probability', 'entropy'])
        pixels = {kind: cv2.imread(str(out / f'{kind}/{stem}.png'), cv2.IMREAD_UNCHANGED) for kind in PIXELS}
        assert np.array_equal(pixels['masks'], found.mask) and len(np.unique(found.mask)) > 1
        assert np.array_equal(pixels['colours'][..., ::-1], colour_mask(found.mask, found.palette))
        assert np.abs(pixels['confidence'] / 255 - found.confidence).max() <= 0.5 / 255 + 1e-6
        chances = np.load(out / f'probabilities/{stem}.npy')
        assert chances.shape == (10, *found.mask.shape) and np.abs(chances - found.probability).max() < 1e-3
        assert np.allclose(found.probability.max(0), found.confidence) and found.entropy.shape == found.mask.shape
        assert cv2.imread(str(out / f'overlays/{stem}.jpg')).shape[0] > found.mask.shape[0]  # the legend
        mine = [row for row in rows if row['file'] == name]
        assert [row['class'] for row in mine] == [*scenes.CLASSES]
        assert [int(row['pixels']) for row in mine] == np.bincount(found.mask.ravel(), minlength=10).tolist()
        assert sum(float(row['share']) for row in mine) == pytest.approx(1, abs=1e-5)


def test_polygons_are_the_mask(model: torch.nn.Module, photos: Path, tmp_path: Path) -> None:
    features = pytest.importorskip('rasterio.features')
    predict_files(model, [str(photos)], tmp_path / 'out', Options(['masks', 'polygons']))
    mask = cv2.imread(str(tmp_path / 'out/masks/b.png'), cv2.IMREAD_UNCHANGED)
    found = json.loads((tmp_path / 'out/polygons/b.geojson').read_text())
    assert found['type'] == 'FeatureCollection' and found['units'] == 'pixels'
    shapes = [(f['geometry'], f['properties']['index']) for f in found['features']]
    assert np.array_equal(features.rasterize(shapes, mask.shape, fill=255, dtype='uint8'), mask)
    holes = 0
    for feature in found['features']:
        assert feature['properties']['class'] == scenes.CLASSES[feature['properties']['index']]
        for i, ring in enumerate(feature['geometry']['coordinates']):
            turn = sum(x * v - u * y for (x, y), (u, v) in zip(ring, ring[1:], strict=False))
            assert ring[0] == ring[-1] and (turn > 0) == (i == 0)
            holes += i > 0
    assert holes
    counts = np.zeros(10, int)
    for feature in found['features']:
        counts[feature['properties']['index']] += feature['properties']['pixels']
    assert counts.tolist() == np.bincount(mask.ravel(), minlength=10).tolist()


def test_goes_on_where_it_stopped(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out, seen, predict = tmp_path / 'out', [], run.predict

    def stopping(model: torch.nn.Module, image: np.ndarray, maps: list[str], **options) -> mmseg_volo.Prediction:
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(image.shape)
        return predict(model, image, maps, **options)

    monkeypatch.setattr(run, 'predict', stopping)
    with pytest.raises(SystemExit) as ended:
        main(command(checkpoint, photos, '--out', out))
    assert ended.value.code == 130 and 'the same command continues' in capsys.readouterr().err
    monkeypatch.setattr(run, 'predict', predict)
    record = out / 'predictions.jsonl'
    record.write_bytes(record.read_bytes() + b'{"file": "b.png", "inp')  # killed while it wrote
    before = times(out)
    assert main(command(checkpoint, photos, '--out', out)) == 0
    after = times(out)
    assert len(after) == 6 and before.items() <= after.items()
    assert main(command(checkpoint, photos, '--out', out)) == 0
    assert '3 of 3 are done already' in capsys.readouterr().out and times(out) == after

    (out / 'masks/b.png').unlink()  # lost, changed, and one kind more: only what is missing is done
    cv2.imwrite(str(photos / 'a.png'), scenes.scene(7, 40, 40)[0])
    assert main(command(checkpoint, photos, '--out', out)) == 0
    again = times(out)
    assert {name for name in after if again[name] != after[name]} == {
        f'{k}/{n}' for k, s in (('masks', 'png'), ('overlays', 'jpg')) for n in (f'a.{s}', f'b.{s}')
    }
    assert main(command(checkpoint, photos, '--out', out, '--outputs', 'areas')) == 0
    assert times(out) == again and (out / 'areas.csv').is_file()
    assert main(command(checkpoint, photos, '--out', out, '--overwrite')) == 0
    assert all(times(out)[name] != again[name] for name in again)


@pytest.mark.filterwarnings('ignore:this processor has no units')
def test_other_settings_are_noticed(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, other = tmp_path / 'out', predictor(tmp_path, seed=1)
    assert main(command(checkpoint, photos / 'a.png', photos / 'b.png', '--out', out)) == 0
    before = times(out)
    for given, what in (
        ([checkpoint, photos, '--opacity', '0.3'], 'opacity'),
        ([other, photos], 'model'),
        ([checkpoint, photos, '--window-size', '64'], 'windows'),
        ([checkpoint, photos, '--no-optimize'], 'optimization'),
        ([checkpoint, photos, '--bf16'], 'precision'),
    ):
        assert main(command(*given, '--out', out)) == 2
        error = capsys.readouterr().err
        assert f'{out} holds results made with other settings ({what}): give another folder to --out, or ' in error
        assert 'or --overwrite to replace them' in error
        assert times(out) == before
    assert main(command(other, photos, '--out', out, '--overwrite')) == 0
    assert main(command(other, photos, '--out', out)) == 0
    record = out / 'predictions.jsonl'
    first, *rest = record.read_text().splitlines()
    settings = json.loads(first)['settings']  # as they were before these were noted
    del settings['precision'], settings['optimization']
    record.write_text('\n'.join([json.dumps(dict(settings=settings)), *rest]))
    assert main(command(other, photos, '--out', out)) == 2
    assert 'results of an older version, which did not record precision, optimization: give' in capsys.readouterr().err
    record.unlink()
    assert main(command(other, photos, '--out', out)) == 2
    assert 'holds files, but no predictions.jsonl that records how they were made' in capsys.readouterr().err


def test_names_that_would_meet(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    assert [str(i.name) for i in find_inputs([str(photos), str(photos / 'a.png')], out)] == [
        'a.png',
        'b.png',
        'deep/a.jpg',
    ]
    with pytest.raises(ValueError, match='a.png and .*deep/a.jpg would be written to the same file'):
        find_inputs([str(photos / 'a.png'), str(photos / 'deep')], out)
    (photos / '.a.1234.png').touch()  # left behind by a killed process
    (photos / 'out/masks').mkdir(parents=True)
    (photos / 'out/masks/a.png').touch()
    assert len(find_inputs([str(photos)], photos / 'out')) == 3
    assert len(find_inputs([str(photos / '**/*.png')], photos / 'out')) == 2
    assert len(find_inputs([str(photos / 'out/masks')], out)) == 1
    with pytest.raises(ValueError, match='masks/a.png would be replaced by its own result: give another folder'):
        find_inputs([str(photos / 'out/masks')], photos / 'out')
    with pytest.raises(ValueError, match='no image or video at .*none'):
        find_inputs([str(tmp_path / 'none')], out)
    pytest.importorskip('av')
    (photos / 'deep.mp4').touch()
    with pytest.raises(ValueError, match='results of .*deep.mp4 and .*a.jpg would be mixed'):
        find_inputs([str(photos)], out)


WRONG = {
    r"outputs are some of masks, .* got 'mask'; did you mean 'masks'": '--outputs mask',
    r'opacity must lie in 0..1': '--opacity 2',
    r'windows must be at least 32 pixels wide': '--window-size 3',
    r'bands are counted from 1': '--bands 0,1,2',
    r'the value range must go from low to high, got \[5.0, 5.0\]': '--value-range 5 5',
}


@pytest.mark.parametrize('message', WRONG)
def test_options_that_cannot_work(
    message: str, checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(command(checkpoint, photos, '--out', tmp_path / 'out', *WRONG[message].split())) == 2
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / 'out').exists()


def test_windows_look_at_the_own_pixels(model: torch.nn.Module) -> None:
    image = scenes.scene(3, 100, 140)[0]
    plain = mmseg_volo.predict(model, image)
    model.cfg.test_pipeline.insert(1, dict(type='Resize', scale=(64, 64), keep_ratio=True))
    try:
        by_windows = mmseg_volo.predict(model, image, windows=64)
        resized = mmseg_volo.predict(model, image)
        assert model.options.mode == 'whole' and model.cfg.test_pipeline[1]['type'] == 'Resize'
    finally:
        del model.cfg.test_pipeline[1]
    assert 0 < (by_windows.mask != plain.mask).mean() < 1
    assert 0 < (resized.mask != plain.mask).mean() < 1
    assert np.array_equal(mmseg_volo.predict(model, image, windows=64).mask, by_windows.mask)


def test_few_things_are_under_way() -> None:
    made: list[int] = []
    source = prefetch(made.append(i) or i for i in range(100))
    for i in range(20):
        assert next(source) == i and len(made) <= i + 1 + COUNT
    source.close()
    assert len(made) <= 20 + COUNT
    done: list[int] = []
    with pytest.raises(ZeroDivisionError), WriteBehind() as behind:
        for i in range(100):
            behind.submit(lambda n: done.append(n) or 1 / (n - 5), i)
    assert done == [*range(len(done))] and 6 <= len(done) <= 6 + COUNT
