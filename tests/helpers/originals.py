"""Whether the tests run with OpenMMLab's own packages (`make test-openmmlab`), and what cannot pass there."""

from __future__ import annotations

from importlib import metadata

import pytest

ONEDL = any(metadata.Distribution.discover(name='onedl-mmengine'))  # else OpenMMLab's own


def needs_onedl(reason: str) -> pytest.MarkDecorator:
    """Mark a test that OpenMMLab's own packages cannot pass, and say why."""
    return pytest.mark.skipif(not ONEDL, reason=f"OpenMMLab's own packages: {reason}")
