from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["saccade.jobs.starting", "saccade.jobs.cli"])
def test_ray_can_begin_before_torch_is_imported(module: str) -> None:
    """Torch takes a second to import; Ray's daemons start in that second."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
