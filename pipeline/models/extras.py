"""Packages that not every installation has. Knows their names, nothing of what they do."""

from __future__ import annotations

import importlib
from types import ModuleType

from saccade.pipeline.errors import ModelNotFound


def imported(package: str, extra: str) -> ModuleType:
    """A package of an optional extra.

    Args:
        package: as it is imported.
        extra: of ``pip install 'saccade[EXTRA]'``.

    Raises:
        ModelNotFound: it is not installed, or does not fit what is.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = error.name or package
        needed = "" if missing == package else f", which {package} needs"
        raise ModelNotFound(
            f"package {missing!r}{needed} expected for this model; found none: "
            f"pip install 'saccade[{extra}]'"
        ) from error
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ModelNotFound(
            f"package {package!r} does not import: {type(error).__name__}: {reason}: install "
            f"versions that fit each other, of torch and torchvision above all: "
            f"pip install --upgrade 'saccade[{extra}]'"
        ) from error
