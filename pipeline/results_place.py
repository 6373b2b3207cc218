"""Where the results of a run lie, by what its folder says. Opens none."""

from __future__ import annotations

import json
from pathlib import Path


def results_elsewhere(run: Path) -> str | None:
    """The URI below which the results of a run lie; None where they lie in its own folder."""
    try:
        place = json.loads((run / "run.json").read_text(encoding="utf-8")).get("results")
    except (OSError, ValueError, AttributeError):
        return None
    return None if place is None else str(place)
