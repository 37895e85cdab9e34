"""Run all benchmarks and write benchmarks/RESULTS.md: `python benchmarks/run_all.py [NAME...]`, or `make bench`.

Benchmarks that are not named keep their present tables. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KEPT = HERE / 'results'
COMPILED = ('VOLO-D1', 'CAFormer-S18', 'ConvFormer-S18', 'CoAtNet-0', 'T2TViT-t_14')  # compiling takes minutes each
COMMANDS = {
    'outlook_attention': ('--threads', '1'),
    'backbones': ('--runs', '5'),
    'backbones_compiled': (*'--runs 5 --compile --sizes 224 --only'.split(), *COMPILED),
    'cpu_prediction': ('--runs', '5'),
    'sliding_window': (),
    'sliding_window_d1': tuple('--config volo_d1_cityscapes --sizes 1024x2048 --classes 19 --threads 2'.split()),
    'pipeline': ('--threads', '1'),
    'metric': (),
    'startup': ('--runs', '5'),
    'growth': ('--runs', '5', '--threads', '1'),
}
SCRIPTS = {'backbones_compiled': 'backbones', 'sliding_window_d1': 'sliding_window'}  # the others are named alike
HEADER = """# Results

`make bench` (`python benchmarks/run_all.py [NAME...]`) wrote this. Ratios count: both sides ran in turns in one
process, on the same inputs, and gave the same results. Seconds are those of the machine.
"""


def run(name: str, path: Path) -> int:
    """Run one benchmark, show its output, and return its exit status."""
    script = HERE / f'{SCRIPTS.get(name, name)}.py'
    print(f'--- {name}', flush=True)
    return subprocess.run([sys.executable, str(script), *COMMANDS[name], '--json', str(path)]).returncode


def cell(value: Any) -> str:
    if value is None:
        return ''
    return f'{value:.3g}' if isinstance(value, float) else str(value)


def section(name: str, saved: Mapping[str, Any]) -> str:
    """Return the section of the page about one benchmark."""
    script = SCRIPTS.get(name, name)
    command = ' '.join(['python', f'benchmarks/{script}.py', *COMMANDS[name]])
    versions = ', '.join(f'{package} {number}' for package, number in saved['versions'].items())
    keys = [*saved['rows'][0]]
    lines = ['| ' + ' | '.join(keys) + ' |', '|' + '---|' * len(keys)]
    lines += ['| ' + ' | '.join(cell(row[key]) for key in keys) + ' |' for row in saved['rows']]
    about = (
        f'`{command}`, {saved["date"][:10]}; {saved["machine"]}; {saved["threads"]} thread(s), {saved["runs"]} runs; '
    )
    picture = '\n![growth](growth.png)\n' if name == 'growth' else ''
    return f'## {saved["about"]}\n\n{about}{versions}.\n{picture}\n' + '\n'.join(lines) + '\n'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'any of {", ".join(COMMANDS)}; all if not given')
    names = parser.parse_args().names or [*COMMANDS]
    if unknown := [name for name in names if name not in COMMANDS]:
        parser.error(f'no benchmark {", ".join(unknown)}; there are {", ".join(COMMANDS)}')
    KEPT.mkdir(exist_ok=True)
    failed = []
    for name in names:
        start = time.monotonic()
        if run(name, KEPT / f'{name}.json'):
            failed.append(name)
        print(f'--- {name} took {time.monotonic() - start:.0f} s\n', flush=True)
        kept = {each: KEPT / f'{each}.json' for each in COMMANDS}
        sections = [section(each, json.loads(path.read_text())) for each, path in kept.items() if path.is_file()]
        (HERE / 'RESULTS.md').write_text('\n'.join([HEADER, *sections]))
    if failed:
        print(f'failed: {", ".join(failed)}', file=sys.stderr)
    return bool(failed)


if __name__ == '__main__':
    sys.exit(main())
