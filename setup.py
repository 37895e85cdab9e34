"""Packaging: `pip install .` brings the package, the shipped configs inside it, and the command `mmseg-volo`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'mmseg_volo/__init__.py').read_text())[1]

setup(
    name='mmseg_volo',
    version=VERSION,
    description='VOLO and its relatives for semantic segmentation, on MMSegmentation',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=[*find_packages(include=['mmseg_volo', 'mmseg_volo.*']), 'mmseg_volo.configs'],
    package_dir={'mmseg_volo.configs': 'configs'},
    package_data={'mmseg_volo.configs': ['*.py', '_base_/*.py', '_base_/*/*.py']},
    extras_require={'fast': ['kornia-rs>=0.2,<0.3']},  # decodes PNG files in half the time
    install_requires=(HERE / 'requirements.txt').read_text().splitlines(),
    entry_points={'console_scripts': ['mmseg-volo = mmseg_volo.cli:run']},
)
