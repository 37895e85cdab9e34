"""The Triton kernels of outlook attention, on machines without a GPU: interpreted for their numbers, and compiled."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmseg_volo.ops import outlook as kernels

pytestmark = pytest.mark.skipif(not kernels.HAS_TRITON, reason='Triton is not installed, or too old')
CASES = Path(__file__).with_name('outlook_triton_cases.py')


def test_numbers() -> None:
    env = {**os.environ, 'TRITON_INTERPRET': '1'}
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(CASES)]
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0 and ' passed' in run.stdout, run.stdout[-5000:] + run.stderr[-2000:]


COMPILED = {  # pointers' type: bfloat16, and then the types of the other arguments
    '_forward': dict.fromkeys(('v', 'logits', 'out'), '*bf16'),
    '_backward': dict.fromkeys(('grad', 'v', 'logits', 'grad_v', 'grad_logits'), '*bf16'),
}


@pytest.mark.parametrize('name', COMPILED)
def test_compiles_for_a_gpu_without_spilling(name: str, tmp_path: Path) -> None:
    """The interpreter takes more than the compiler does. To machine code of compute capability 9.0, as bfloat16."""
    import triton
    from triton.backends.compiler import GPUTarget

    from mmseg_volo.ops import outlook_triton

    fn = getattr(outlook_triton, name)
    constants = outlook_triton.tile(32)
    types = {'lse': '*fp32', 'scale': 'fp32', 'scale2': 'fp32', **COMPILED[name], **dict.fromkeys(constants, 'constexpr')}
    signature = {arg: types.get(arg, 'i32') for arg in fn.arg_names}
    aligned = [['tt.divisibility', 16]]  # as torch allocates
    source = triton.compiler.ASTSource(
        fn=fn,
        signature=signature,
        constexprs=constants,
        attrs={(i,): aligned for i, arg in enumerate(fn.arg_names) if types.get(arg, '').startswith('*')},
    )
    target = GPUTarget('cuda', 90, 32)
    compiled = triton.compile(source, target=target, options=dict(num_warps=outlook_triton.WARPS))
    ptx = compiled.asm['ptx']
    assert 'ld.global' in ptx and 'st.global' in ptx and 'atom.' not in ptx
    assert not re.search(r'\.local ', ptx)
