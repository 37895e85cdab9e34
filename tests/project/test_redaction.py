"""Passwords and tokens reach what runs, and no file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from helpers import tiny_training
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend

from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.redaction import redact, redact_argv, redact_text
from mmseg_volo_cli import main

CANARY = 'c4n4ry-in-no-file'
REACHED: list[object] = []


@VISBACKENDS.register_module()
class AskingBackend(LocalVisBackend):
    """Needs a key, as wandb does."""

    def __init__(self, save_dir: str, init_kwargs: dict):
        super().__init__(f'{save_dir}/asking')
        REACHED.append(init_kwargs['api_key'])

    def add_config(self, config: Config, **kwargs: object) -> None:
        assert CANARY not in str(config.to_dict())
        super().add_config(config, **kwargs)


@HOOKS.register_module()
class FailingHook(Hook):
    """Is refused by a server."""

    def __init__(self, token: str):
        self.token = token

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        runner.logger.warning('asking with token=%s', self.token)
        raise RuntimeError(f'401 for token={self.token}')


def leaks(folder: Path) -> list[str]:
    """Files below a folder that hold the canary; also in members of checkpoints."""
    found = []
    for path in folder.rglob('*'):
        if path.is_file():
            contents = [path.read_bytes()]
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    contents += [archive.read(name) for name in archive.namelist()]
            found += [str(path)] * any(CANARY.encode() in content for content in contents)
    return found


MORE = """
visualizer = dict(type='SegLocalVisualizer', vis_backends=[
    dict(type='FaultTolerantVisBackend'), dict(type='AskingBackend', init_kwargs=dict(api_key=''))])
extra = dict(password='', url='', note='{{$SOME_API_KEY:none}}', cls_token='mean')
"""


def test_a_token_works_and_stands_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv('SOME_API_KEY', f'{CANARY}-of-the-environment')
    REACHED.clear()
    data, work = scenes.generate(tmp_path / 'data', 2, 2, 64, 128), tmp_path / 'work'
    given = [f'visualizer.vis_backends.1.init_kwargs.api_key={CANARY}', f'extra.password={CANARY}']
    given.append(f'extra.url=https://me:{CANARY}@host/a?token={CANARY}&b=1')
    given += ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']
    assert tiny_training.train(tiny_training.write_config(tmp_path, MORE), data, work, '--log=tensorboard', *given) == 0
    assert REACHED == [CANARY]
    assert not leaks(work) and CANARY not in ''.join(capsys.readouterr())
    (dumped,) = work.glob('small.py')
    extra = load_config(dumped).extra
    assert extra.url == 'https://***@host/a?token=***&b=1' and extra.note == '***'
    assert (extra.password, extra.cls_token) == ('***', 'mean')
    assert 'api_key=***' in (work / 'report.html').read_text()


def test_what_fails_tells_no_file_either(tmp_path: Path) -> None:
    data, work = scenes.generate(tmp_path / 'data', 2, 2, 64, 128), tmp_path / 'work'
    config = tiny_training.write_config(tmp_path, f"custom_hooks = [dict(type='FailingHook', token='{CANARY}')]\n")
    with pytest.raises(RuntimeError, match='401'):
        tiny_training.train(config, data, work)
    assert '401 for token=***' in (work / 'report.html').read_text()
    assert not leaks(work)


def test_a_recipe_would_hold_the_password_of_an_address(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ['train', '--data', str(tmp_path), '--model', 'volo_d1', '--work-dir', str(tmp_path / 'work')]
    assert main([*command, '--weights', f'https://me:{CANARY}@host/a.pth']) == 2
    said = capsys.readouterr().err
    assert 'https://***@host/a.pth' in said and CANARY not in said


def test_dumps_of_other_kinds(tmp_path: Path) -> None:
    for suffix in ('json', 'yaml'):
        path = tmp_path / f'a.{suffix}'
        path.write_text(json.dumps(dict(model=dict(type='A', init_cfg=dict(checkpoint=f'https://a:{CANARY}@b/c')))))
        load_config(path).dump(tmp_path / f'dumped.{suffix}')
        assert '***@b/c' in (tmp_path / f'dumped.{suffix}').read_text()
    (tmp_path / 'a.json').unlink(), (tmp_path / 'a.yaml').unlink()
    assert not leaks(tmp_path)


SECRET = {
    'x.token=abc': 'x.token=***',
    'model.init_cfg.api_key=12': 'model.init_cfg.api_key=***',
    "hooks=[dict(type='A', password='a b')]": "hooks=[dict(type='A', password='***')]",
    'credentials.user=joe': 'credentials.user=***',
    'headers={"Authorization": "Bearer abcdefgh"}': 'headers={"Authorization": "***"}',
    'https://joe:p@ss@host:80/a?b=1': 'https://***@host:80/a?b=1',
    's3://key:word@bucket/a': 's3://***@bucket/a',
    'https://host/a?X-Amz-Signature=00ff&x=1#c': 'https://host/a?X-Amz-Signature=***&x=1#c',
    'to hf_aBcDeFgHiJ0123456789 it': 'to *** it',
    'a=ghp_0123456789abcdefABCD': 'a=***',
    'sk-proj-0123456789ABCDEF': '***',
}
HARMLESS = [
    'model.backbone.cls_token=mean',
    'num_tokens=5',
    'with_cls_token=True',
    'token=None',
    'tokens_type=transformer',
    'token_mixer=attention',
    'author=me',
    'https://host:8080/a@b?page=2',
    'sky',
    'hf_pretrained',
    'disk-of-the-machine-0A',
    '/data/key/password/1.png',
    "model=dict(backbone=dict(type='VOLO', arch='d1'))",
]


@pytest.mark.parametrize('text', SECRET)
def test_words_that_hold_secrets(text: str) -> None:
    assert redact_argv(['train', text]) == ['train', SECRET[text]]
    assert redact_argv(redact_argv([text])) == [SECRET[text]]


@pytest.mark.parametrize('text', HARMLESS)
def test_words_that_hold_none(text: str) -> None:
    assert redact_argv([text]) == [text] and redact_text(text) == text


def test_data_of_any_depth() -> None:
    given = dict(a=[dict(apiKey='x'), ('b', dict(auth=('me', 'word'), pin=3))], secret=dict(a=dict(b='c')))
    expected = dict(a=[dict(apiKey='***'), ('b', dict(auth=('***', '***'), pin=3))], secret=dict(a=dict(b='***')))
    assert redact(dict(given, password=123)) == dict(expected, password='***')
    harmless = dict(token=None, password='', num_token=4, api_key=False, type='A', size=(1, 2.5))
    assert redact(harmless) == harmless
    assert redact_argv(['--hub-token', 'abc', '--resume']) == ['--hub-token', '***', '--resume']
