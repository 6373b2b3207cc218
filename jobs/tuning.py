"""What `saccade tune` prints: the settings that were tried for every pass, and the one chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.table import Table

from saccade.jobs.rehearsal import Conditions, rehearse
from saccade.pipeline.execution import Calibration, ExecutionSetting, Trial
from saccade.pipeline.recipe import Tolerance
from saccade.pipeline.recipe_file import load_recipe
from saccade.workers.memory_size import format_nbytes
from saccade.workers.tuning import SECONDS


def tune(
    recipe_path: Path,
    uri: str,
    conditions: Conditions,
    *,
    fresh: bool = False,
    seconds: float = SECONDS,
) -> Iterator[Table | str]:
    """Measure every pass of a recipe on one image, whatever precision it states.

    What is found goes to the user's cache, so that runs with ``precision: auto`` need not measure.

    Args:
        recipe_path: of the recipe.
        uri: of the image.
        conditions: on what.
        fresh: measure although the cache knows.
        seconds: time for all passes together.

    Raises:
        SaccadeError: the recipe or the image does not open, or they do not fit each other.
    """
    stated = load_recipe(recipe_path)
    recipe = stated.model_copy(update={"precision": "auto"})
    models = recipe_path.parent.absolute()
    with rehearse(recipe, models, uri, conditions, fresh=fresh, seconds=seconds) as rehearsal:
        resolved = rehearsal.resolver.resolve()
    found = resolved.settings
    for layout in resolved.plan.passes:
        if layout.name in found:
            yield heading(layout.name, found[layout.name])
            yield trials_table(found[layout.name], recipe.tolerance)
        else:
            yield f"{layout.name}: no window that was sampled can be read; float32 is used"
    if stated.precision != "auto":
        yield f"the recipe states precision: {stated.precision}; 'auto' would use the chosen ones"


def heading(name: str, calibration: Calibration) -> str:
    """One line about a pass."""
    return f"{name}: measured in {calibration.seconds:.1f} s on {calibration.device}"


def trials_table(calibration: Calibration, tolerance: Tolerance) -> Table:
    """A row per setting; megapixels count what is answered for, not its halo."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for title in ("", "precision", "weights", "window", "batch", "MP/s", "mean |dp|", "labels"):
        table.add_column(title, no_wrap=True)
    table.add_column("")
    for trial in calibration.trials:
        mark = "->" if trial == calibration.chosen else ""
        table.add_row(mark, *_cells(trial), _remark(trial, tolerance))
    return table


def _cells(trial: Trial) -> tuple[str, ...]:
    setting = trial.setting
    sizes = (
        setting.precision,
        _weights(setting),
        f"{setting.window_px} px" if setting.window_px else "whole",
        str(setting.batch) if setting.window_px else "",
    )
    if trial.failure:
        return (*sizes, "", "", "")
    pace = f"{1 / trial.seconds_per_megapixel:.2f}"
    return (*sizes, pace, f"{trial.mean_error:.1e}", f"{trial.label_agreement:.3%}")


def _weights(setting: ExecutionSetting) -> str:
    parts = ["channels last"] * setting.channels_last + ["fused"] * setting.fused
    return ", ".join(parts + ["graph"] * setting.graphed) or "as loaded"


def _remark(trial: Trial, tolerance: Tolerance) -> str:
    if trial.failure:
        return f"refused: {trial.failure}"
    memory = "" if trial.peak_nbytes is None else format_nbytes(trial.peak_nbytes)
    # the reference, which comes first, is right by definition and so always within
    return memory if trial.within(tolerance) else f"beyond the tolerance {memory}".rstrip()
