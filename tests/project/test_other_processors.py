"""What depends on the processor, on others: instruction sets that this one has too, with and without our kernel.

Their own environment needs processes of their own; the whole suite runs so in `.github/workflows/ci.yml`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch
from helpers.paths import ROOT

OLD = dict(ATEN_CPU_CAPABILITY='default', ONEDNN_MAX_CPU_ISA='SSE41', MKL_ENABLE_INSTRUCTIONS='SSE4_2')
AVX2 = dict(ATEN_CPU_CAPABILITY='avx2', ONEDNN_MAX_CPU_ISA='AVX2', MKL_ENABLE_INSTRUCTIONS='AVX2')
PROCESSORS = {
    'the oldest, without the kernel': dict(OLD, MMSEG_VOLO_CPU_KERNEL='0'),
    'AVX2': dict(AVX2, MMSEG_VOLO_CPU_KERNEL='1'),
    'this one, without the kernel': dict(MMSEG_VOLO_CPU_KERNEL='0'),
}
DEPENDS = """
    models/test_cpu.py::test_winograd_is_the_convolution
    models/test_cpu.py::test_prepared_segmentors_predict_the_same_and_keep_their_weights[volo_demo]
    models/test_cpu.py::test_prepared_segmentors_train_as_before
    models/test_cpu.py::test_bfloat16_where_it_is_asked_for
    models/test_cpu.py::test_one_image_gets_one_answer_whatever_came_before
    project/test_other_processors.py::test_the_environment_is_heeded
    zoo/test_cost.py::test_bytes_are_those_of_torchs_profiler
    models/test_decode_heads.py::test_bfloat16_rounds_no_worse_than_mmseg
    engine/test_muon.py
    ops/test_outlook.py::test_same_numbers_and_gradients
    ops/test_outlook_cpu.py::test_same_as_the_formula
    ops/test_outlook_cpu.py::test_same_bits_on_any_number_of_threads
    inference/test_predict.py::test_every_kind_says_what_the_model_says
    inference/test_geotiff.py::test_the_same_as_the_whole_in_memory[tiles]
    inference/test_video.py::test_frames_instead_of_a_lossless_video
    models/test_volo.py::test_gradients_are_timms
""".split()


@pytest.mark.skipif(platform.machine() not in ('x86_64', 'AMD64'), reason='the instruction sets are of x86')
@pytest.mark.parametrize('name', PROCESSORS)
def test_the_same_on_other_processors(name: str) -> None:
    call = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *(f'tests/{test}' for test in DEPENDS)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', **PROCESSORS[name]}
    ended = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-1000:]


def test_the_environment_is_heeded() -> None:
    """Else all of the above would be one processor."""
    wanted = os.environ.get('ATEN_CPU_CAPABILITY')
    known = torch.backends.cpu.get_cpu_capability()
    assert wanted is None or known == wanted.upper()
    from mmseg_volo.ops import outlook_cpu

    assert outlook_cpu.LIBRARY is None or os.environ.get(outlook_cpu.SWITCH) != '0'
