"""Packaging: `pip install .` brings the package, the shipped configs inside it, and the command `mmseg-volo`."""

import re
import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'mmseg_volo/version.py').read_text())[1]


class BuildWithConfigs(build_py):
    """Puts the configs and the index of models where OpenMMLab's tools look for those of an installed package."""

    def run(self):
        super().run()
        if not getattr(self, 'editable_mode', False):  # then they are found in the checkout, beside the package
            inside = Path(self.build_lib, 'mmseg_volo', '.mim')
            ignored = shutil.ignore_patterns('__pycache__')
            shutil.copytree(HERE / 'configs', inside / 'configs', ignore=ignored, dirs_exist_ok=True)
            shutil.copy(HERE / 'model-index.yml', inside)


# no header of Python's is needed, and nothing of OpenMP is linked: it is found in torch's at run time
OUTLOOK = Extension(
    'mmseg_volo.ops._outlook_cpu',
    ['mmseg_volo/ops/outlook_cpu.c'],
    extra_compile_args=['-O3', '-Wno-psabi', *(['-fopenmp'] if sys.platform == 'linux' else [])],
    optional=True,  # without a C compiler torch's operators do it, more slowly
)

setup(
    name='mmseg_volo',
    version=VERSION,
    description='VOLO and its relatives for semantic segmentation, on MMSegmentation',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    package_data={'mmseg_volo': ['py.typed'], 'mmseg_volo.report': ['page.html'], 'mmseg_volo.zoo': ['results.yml']},
    python_requires='>=3.10',
    ext_modules=[] if sys.platform == 'win32' else [OUTLOOK],
    packages=find_packages(include=['mmseg_volo', 'mmseg_volo.*', 'mmseg_volo_cli', 'mmseg_volo_cli.*']),
    cmdclass={'build_py': BuildWithConfigs},
    install_requires=(HERE / 'requirements.txt').read_text().splitlines(),
    extras_require={
        'demo': ['gradio>=6,<7'],
        'geo': ['rasterio', 'shapely>=2.1'],
        'video': ['av'],
        **{name: [name] for name in ('tensorboard', 'wandb', 'mlflow')},
    },
    entry_points={'console_scripts': ['mmseg-volo = mmseg_volo_cli:run']},
)
