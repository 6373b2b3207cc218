"""This very saccade as modules that a cluster can be given, where it runs from its sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

from saccade.pipeline.errors import RunError

FOLDERS = ("pipeline", "workers", "jobs")
FILES = ("pyproject.toml", "README.md", "LICENSE")
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


def source_root() -> Path | None:
    """The folder that this saccade's sources lie in; None where it was installed as a wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else None


def unpacked_wheel(root: Path, folder: Path) -> Path:
    """Build a wheel and unpack it: what it installs, its requirements left out.

    Ray would install a wheel with pip on every node, together with all that it requires; a folder
    of modules is only unpacked there.

    Args:
        root: of the sources; left as they are.
        folder: an empty one, for the wheel and what is in it.

    Returns:
        The folder ``saccade`` below it.

    Raises:
        RunError: it can't be built.
    """
    sources = folder / "sources"
    for name in FOLDERS:
        shutil.copytree(root / name, sources / name, ignore=IGNORED)
    for name in FILES:
        shutil.copy(root / name, sources)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    if find_spec("setuptools"):
        command.append("--no-build-isolation")
    built = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(sources)], capture_output=True, text=True
    )
    if built.returncode:
        raise RunError(f"no wheel could be built of {root}: {built.stderr.strip()[-2000:]}")
    (wheel,) = folder.glob("saccade-*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked" / "saccade"
