"""Archives: manifests, the journal, the driver of a run, the command line.

``from saccade.jobs import run``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.jobs.driver import RunSummary, run
    from saccade.jobs.evaluations.evaluating import Evaluation, evaluate
    from saccade.jobs.options import RunOptions

__all__ = ["Evaluation", "RunOptions", "RunSummary", "evaluate", "run"]

_HOMES = {
    "Evaluation": "saccade.jobs.evaluations.evaluating",
    "evaluate": "saccade.jobs.evaluations.evaluating",
    "RunOptions": "saccade.jobs.options",
    "RunSummary": "saccade.jobs.driver",
    "run": "saccade.jobs.driver",
}


def __getattr__(name: str) -> Any:
    """Import the few public names on first use: `saccade --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
