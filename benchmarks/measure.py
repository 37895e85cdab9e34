"""Time both sides of a benchmark in turns in one process, print a table, and write `--json FILE`."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn

from mmseg_volo.zoo.cost import LiveMemory

PACKAGES = ('torch', 'onedl-mmsegmentation', 'opencv-python', 'numpy', 'pillow')


def arguments(about: str, options: Mapping[str, Mapping[str, Any]] | None = None) -> argparse.Namespace:
    """Parse `--runs`, `--threads` and `--json`, and set the number of threads of torch; OpenCV gets one.

    Args:
        about: description of the benchmark.
        options: more flags, each with its arguments for `add_argument`.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument('--runs', type=int, default=7, help='timed runs of each side, after one that is not')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='all cores if not given')
    parser.add_argument('--json', type=Path, help='write the table to this file')
    for flag, settings in (options or {}).items():
        parser.add_argument(flag, **settings)
    args = parser.parse_args()
    if args.runs < 5:
        parser.error(f'--runs must be at least 5, got {args.runs}')
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    return args


def medians(sides: Mapping[str, Callable[[int], Any]], runs: int) -> dict[str, float]:
    """Return the median seconds of each side; the sides take turns, so that other load on the machine affects all.

    Args:
        sides: name -> function to time; its argument is the number of the run, the same for all sides.
        runs: number of timed runs, after an untimed one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(runs + 1):
        for name, work in sides.items():
            start = time.perf_counter()
            work(run)
            if run:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(all_runs) for name, all_runs in seconds.items()}


def peak_bytes(work: Callable[[int], Any], known: Iterable[Tensor]) -> int:
    """Measure the largest sum of bytes of tensors alive at once while `work` runs, its result included.

    On a CPU these are the outputs of torch's operators, without their internal scratch memory; on a GPU the memory
    handed out by torch's allocator.

    Args:
        work: as in `medians`.
        known: tensors that existed before, which do not count; their device is the one measured.
    """
    existing = nn.Module()
    for index, tensor in enumerate(known):
        existing.register_buffer(str(index), tensor)
    if next(existing.buffers()).is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work(0)
        return torch.cuda.max_memory_allocated() - before
    with LiveMemory(existing) as memory:
        work(0)
    return memory.peak


def report(about: str, rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> None:
    """Print rows as a table, and save them to the `--json` file; cells that a row lacks stay empty."""
    keys = {key: None for row in rows for key in row}
    rows = [{**keys, **row} for row in rows]
    show = lambda v: f'{v:.4g}' if isinstance(v, float) else '' if v is None else str(v)  # noqa: E731
    cells = [[*keys], *([show(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    print(f'{about}; {torch.get_num_threads()} thread(s), medians of {args.runs} runs in turns')
    for row in cells:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    save(about, rows, args)


def save(about: str, rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> None:
    """Write rows with the machine and the versions to the `--json` file, if there is one."""
    if args.json:
        content = dict(
            about=about,
            date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
            machine=f'{platform.machine()}, {processor()}, {device()}, Python {platform.python_version()}',
            versions={name: version(name) for name in PACKAGES},
            threads=torch.get_num_threads(),
            runs=args.runs,
            rows=[dict(row) for row in rows],
        )
        args.json.write_text(json.dumps(content, indent=1) + '\n')


def device() -> str:
    """Return the GPU's name, or 'no GPU'."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'


def processor() -> str:
    """Return the processor's name, if the system provides it."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or 'unknown processor'
