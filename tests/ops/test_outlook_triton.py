"""The Triton kernels of outlook attention, on machines without a GPU: interpreted for their numbers, and compiled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.paths import TESTS

from mmseg_volo.ops import outlook_cuda as kernels

pytestmark = pytest.mark.skipif(not kernels.HAS_TRITON, reason='Triton is not installed, or too old')
CASES = TESTS / 'helpers/outlook_triton_cases.py'


def test_numbers() -> None:
    env = {**os.environ, 'TRITON_INTERPRET': '1'}
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(CASES)]
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0 and ' passed' in run.stdout, run.stdout[-5000:] + run.stderr[-2000:]


HALVES = ('v', 'logits', 'out', 'grad', 'grad_v', 'grad_logits')


@pytest.mark.parametrize('name', ['_forward', '_backward'])
def test_compiles_for_a_gpu(name: str) -> None:
    """To PTX for compute capability 8.0, in bfloat16: the interpreter takes more than the compiler does."""
    import triton
    from triton.backends.compiler import GPUTarget

    from mmseg_volo.ops import outlook_triton

    kernel, constants = getattr(outlook_triton, name), outlook_triton.tile(32)
    types = {**dict.fromkeys(HALVES, '*bf16'), 'lse': '*fp32', 'scale': 'fp32', 'scale2': 'fp32'}
    types |= dict.fromkeys(constants, 'constexpr')
    signature = {arg: types.get(arg, 'i32') for arg in kernel.arg_names}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget('cuda', 80, 32), options=outlook_triton.OPTIONS)
    ptx = compiled.asm['ptx']
    assert 'ld.global' in ptx and 'st.global' in ptx and 'atom.' not in ptx and '.local' not in ptx
