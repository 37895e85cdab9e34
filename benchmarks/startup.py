"""Measure how long users wait before work starts, in fresh processes: `python benchmarks/startup.py`.

It times help, the import of the inference API beside torch's and mmseg's, and the demo's first training iteration
(including the check of its 440 scenes), as a user's tool prints it. Run it where only requirements.txt is installed:
mmseg also imports mmpretrain and wandb, which the tests use, if it finds them, and that takes another second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import arguments, medians, report

from mmseg_volo.cli.quickstart import HEIGHT, NUM_TRAIN, NUM_VAL, WIDTH
from mmseg_volo.datasets.synthetic import scenes

ROOT = Path(__file__).parents[1]
IMPORTS = {
    'import torch': 'import torch',
    'our inference API': 'from mmseg_volo import load, predict',
    "mmseg's inference API": 'from mmseg.apis import inference_model, init_model',
}


def run(*command: str) -> None:
    subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=ROOT)


def first_iteration(data: Path) -> None:
    """Start the demo's training and kill it once it prints its first iteration."""
    with tempfile.TemporaryDirectory() as work:
        options = [f'data_root={data}', 'default_hooks.logger.interval=1']
        command = [sys.executable, '-u', 'tools/train.py', 'volo_demo', '--work-dir', work, '--cfg-options', *options]
        environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None  # a pipe
            started = any('Iter(train)' in line for line in process.stdout)
            process.kill()
        assert started, 'the training ended before its first iteration'


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as folder:
        data = scenes.generate(Path(folder) / 'scenes', NUM_TRAIN, NUM_VAL, HEIGHT, WIDTH)
        sides = {name: lambda _, code=code: run('-c', code) for name, code in IMPORTS.items()}
        sides['tools/train.py --help'] = lambda _: run('tools/train.py', '--help')
        sides['first training iteration of the demo'] = lambda _: first_iteration(data)
        times = medians(sides, args.runs)
    torch = times['import torch']
    rows = [{'start': name, 's': seconds, 'beyond torch, s': seconds - torch} for name, seconds in times.items()]
    report('Waiting for the start', rows, args)


if __name__ == '__main__':
    main()
