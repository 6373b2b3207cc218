"""An evaluation for programs: JSON, and CSV tables of images and curves. Decides nothing."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saccade.jobs.evaluations.evaluating import Evaluation
from saccade.pipeline.quality.curves import precision_recall
from saccade.pipeline.quality.summary import NUMBERS, SPREAD_OF, ClassSummary
from saccade.workers.folder import write_whole

ALL_IMAGES = ""
"""In the column ``image``, the row of all pixels and objects together."""


def as_json(evaluation: Evaluation) -> str:
    """The whole evaluation but its curves; what is not defined is null."""
    return json.dumps(_plain(_tree(evaluation)), indent=1)


def _tree(evaluation: Evaluation) -> dict[str, Any]:
    checked, same = evaluation.gate, evaluation.agreement
    return {
        "run": evaluation.run,
        "part": evaluation.part,
        "downsample": evaluation.downsample,
        "images": evaluation.images,
        "notes": evaluation.notes,
        "classes": {one.name: _class_tree(one) for one in evaluation.classes},
        "cost": [asdict(one) for one in evaluation.cost],
        "agreement": None
        if same is None
        else {"labels_equal": same.labels_equal, "mean_difference": same.mean_difference},
        "gate": None
        if checked is None
        else {"open": checked.open, "says": str(checked), "gain": asdict(checked.gain)},
        "kept": {
            name: {
                "dense": _class_tree(kept.dense),
                "gain": asdict(kept.gain),
                "precision_kept": kept.precision_kept,
                "recall_change": asdict(kept.recall_change),
            }
            for name, kept in evaluation.kept.items()
        },
    }


def _class_tree(one: ClassSummary) -> dict[str, Any]:
    return {
        "threshold": one.threshold,
        "pooled": asdict(one.pooled),
        "spread": {name: asdict(one.spread(name)) for name in SPREAD_OF},
        "sizes": {area: asdict(some) for area, some in one.sizes.items()},
        "images": {name: asdict(numbers) for name, numbers in one.images.items()},
    }


def _plain(tree: Any) -> Any:
    """Without the numbers that JSON does not know."""
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def images_csv(evaluation: Evaluation) -> str:
    """A row per class and image, and one per class for all images together."""
    rows = [
        (name, one.name, one.threshold, *(getattr(numbers, number) for number in NUMBERS))
        for one in evaluation.classes
        for name, numbers in [(ALL_IMAGES, one.pooled), *one.images.items()]
    ]
    return _table(("image", "class", "threshold", *NUMBERS), rows)


def curves_csv(evaluation: Evaluation) -> str:
    """The precision-recall curve of each class, over the pixels of all images."""
    rows = [
        (one.name, *point) for one in evaluation.classes for point in zip(*_curve(one), strict=True)
    ]
    return _table(("class", "threshold", "precision", "recall"), rows)


def _curve(one: ClassSummary) -> tuple[list[float], ...]:
    counts = one.counts
    curve = precision_recall(counts.negatives[0], counts.positives[0], counts.scores)
    return curve.thresholds.tolist(), curve.precision.tolist(), curve.recall.tolist()


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def write_folder(folder: Path, evaluation: Evaluation) -> tuple[Path, ...]:
    """Write everything to a folder; returns the files."""
    files = {
        "evaluation.json": as_json(evaluation),
        "images.csv": images_csv(evaluation),
        "curves.csv": curves_csv(evaluation),
    }
    for name, text in files.items():
        write_whole(folder / name, text)
    return tuple(folder / name for name in files)
