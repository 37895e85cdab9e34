"""Check Python, processors, memory and GPUs, and run a training step on each device."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from pathlib import Path

from mmseg_volo_cli.doctor.report import GB, NOTE, OK, WRONG, Finding, Findings, import_error, words

LEAST_MEMORY, LEAST_SHARED = 4 * GB, 1 * GB
PYTHONS = ((3, 10), (3, 13))


def system() -> Findings:
    """Check the Python version, CPU cores, memory and shared memory."""
    version = sys.version_info[:2]
    message = f'Python {platform.python_version()} at {sys.executable}, {platform.platform()}'
    if version < PYTHONS[0]:
        yield Finding(WRONG, message, 'create an environment with Python 3.10 to 3.13')
    else:
        tested = version <= PYTHONS[1]
        remedy = '' if tested else 'Python 3.10 to 3.13 are tested, this one is not'
        yield Finding(OK if tested else NOTE, message, remedy)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    total, free = _memory()
    low = 0 < total < LEAST_MEMORY
    remedy = 'use small crops and batches: see train_dataloader.batch_size and crop_size' if low else ''
    yield Finding(NOTE if low else OK, f'{cores} CPU cores, {free / GB:.1f} of {total / GB:.1f} GB memory free', remedy)
    if (shared := Path('/dev/shm')).is_dir():
        room = shutil.disk_usage(shared)
        low = room.total < LEAST_SHARED
        remedy = 'workers of data loaders share memory there: docker run --shm-size=8g, or num_workers=0' if low else ''
        yield Finding(NOTE if low else OK, f'{room.free / GB:.1f} GB of shared memory (/dev/shm) free', remedy)


def _memory() -> tuple[float, float]:
    """Return (total, free) bytes, limited to the container's; zeros where the system does not report them."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
    except OSError:
        return 0, 0
    table = {line.split(':')[0]: 1024 * int(line.split()[1]) for line in lines}
    total, free = table['MemTotal'], table.get('MemAvailable', table['MemFree'])
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit
        limit = int(Path('/sys/fs/cgroup/memory.max').read_text())
        used = int(Path('/sys/fs/cgroup/memory.current').read_text())
        total, free = min(total, limit), min(free, limit - used)
    return total, free


def devices() -> Findings:
    """List the CPU and the GPUs that torch can use; explain why a GPU cannot be used."""
    if reason := import_error('torch'):
        yield Finding(NOTE, f'skipped: torch cannot be imported ({reason})')
        return
    import torch

    yield Finding(OK, f'CPU, {torch.get_num_threads()} torch threads')
    hardware = shutil.which('nvidia-smi') or Path('/proc/driver/nvidia/version').is_file()
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
    if hidden in ('', '-1'):
        yield Finding(NOTE, f'CUDA_VISIBLE_DEVICES={hidden!r} hides all GPUs', 'unset CUDA_VISIBLE_DEVICES')
    elif torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            message = f'cuda:{i} {torch.cuda.get_device_name(i)}, {free / GB:.1f} of {total / GB:.1f} GB free'
            full = free < total / 4
            yield Finding(NOTE if full else OK, message, 'another program uses it: see nvidia-smi' if full else '')
    elif hardware and torch.version.cuda is None and torch.version.hip is None:
        message = f'there is an NVIDIA driver, but torch {torch.__version__} was built without CUDA'
        yield Finding(WRONG, message, 'install the CUDA build of torch, see pytorch.org/get-started')
    elif hardware:
        message = f'there is an NVIDIA driver, but torch (CUDA {torch.version.cuda}) finds no GPU{_cuda_error()}'
        yield Finding(WRONG, message, 'run nvidia-smi; install a newer driver, or torch for an older CUDA')
    elif not torch.backends.mps.is_available():
        yield Finding(OK, 'no GPU; training uses the CPU')
    if torch.backends.mps.is_available():
        yield Finding(OK, 'mps, the GPU of an Apple computer')


def _cuda_error() -> str:
    """Return why CUDA cannot be initialised, to append to a sentence."""
    import torch

    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        return f': {words(error)}'
    return ''


def trials() -> Findings:
    """Run one training step on each device."""
    if reason := import_error('mmseg_volo.register_all'):
        yield Finding(NOTE, f'skipped: mmseg_volo cannot be imported ({reason})')
        return
    import torch

    from mmseg_volo_cli.doctor.trial import training_step

    names = ['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))]
    names += ['mps'] * torch.backends.mps.is_available()
    for name in names:
        try:
            yield Finding(OK, f'{name}: {training_step(name)}')
        except Exception as error:  # drivers and kernels raise anything
            reinstall = 'pip install --force-reinstall torch'
            gpu = (
                'install torch for this GPU and driver, see pytorch.org/get-started; or hide the GPU with '
                'CUDA_VISIBLE_DEVICES'
            )
            yield Finding(WRONG, f'{name}: {words(error)}', reinstall if name == 'cpu' else gpu)
