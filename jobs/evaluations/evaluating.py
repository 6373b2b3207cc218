"""`saccade evaluate`: a run's results beside truth, and beside a dense run. Reads only.

One image after the other, and of each one strip after the other. What is counted and what follows
from it is `saccade.pipeline.quality`'s; here is which images, which truth and which thresholds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from saccade.jobs.evaluations.costs import PassCost, pass_costs
from saccade.jobs.monitoring.status import read_tally
from saccade.pipeline.errors import TruthError
from saccade.pipeline.quality.agreement import Agreement
from saccade.pipeline.quality.answer import Answer
from saccade.pipeline.quality.gate import Gate, gate
from saccade.pipeline.quality.image import ImageQuality, compare_image
from saccade.pipeline.quality.intervals import Interval, Spread, paired_interval, spread
from saccade.pipeline.quality.summary import ClassSummary, Rule, summarise, thresholds_of
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.sources.plane import PlaneSpec
from saccade.pipeline.truth import PARTS, TruthRecipe, load_truth, open_truth, read_split
from saccade.workers.folder import RunFolder, write_whole


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What a run keeps of a dense run's answer, for one class."""

    dense: ClassSummary
    """The dense run against the same truth, on the same grid."""
    gain: Interval
    """Average precision of the run minus the dense run's, paired over images."""
    precision_kept: float | None
    """Average precision, pooled, as a share of the dense run's; None where that is undefined."""
    recall_change: Spread
    """Object recall minus the dense run's, per image: the worst image loses the most."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How good the results of a run are."""

    run: str
    """Its folder."""
    part: str | None
    """Of the split; None where all images of the run were taken."""
    downsample: tuple[float, ...]
    """Pixels of level 0 per pixel of the grid that was compared on; of all images, rising."""
    images: tuple[str, ...]
    """That were compared."""
    classes: tuple[ClassSummary, ...]
    """Each class that result and truth share, and 'any'."""
    cost: tuple[PassCost, ...]
    """Per pass; empty where the run's journal is not there."""
    agreement: Agreement | None
    """With the dense run, where one was given."""
    kept: Mapping[str, Kept]
    """Per class, of the dense run; empty where none was given."""
    gate: Gate | None
    """Whether dense fine beats dense glance, where both were given."""
    notes: tuple[str, ...]
    """What a reader must know to read the numbers rightly."""


def evaluate(
    run: Path | str,
    truth: TruthRecipe | Path | str,
    *,
    split: Path | str | None = None,
    part: str = "test",
    against: Path | str | None = None,
    glance: Path | str | None = None,
    threshold: Rule = 0.5,
    least_px: int = 0,
) -> Evaluation:
    """Compare the results of a run, complete or partial, with truth.

    Scores are compared at the result's own resolution (of several runs, at the finest), with the
    truth max-pooled onto it; objects are the connected regions of the truth at level 0.

    Args:
        run: a run's folder, or the result of one image.
        truth: where the truth lies, or the YAML file that says so.
        split: a CSV file of names and parts; all images of the run by default.
        part: of the split.
        against: a dense run over the same images, for agreement and for what is kept.
        glance: a dense run of the glance alone: whether ``against`` beats it decides whether
            retention means anything.
        threshold: for Dice and recall; see ``Rule``.
        least_px: smaller objects don't count, in pixels of level 0.

    Raises:
        UsageError: no image to compare, or truth that does not fit.
        SourceError: an image's truth is missing or can't be read.
        StoreError: there is no run.
    """
    recipe = truth if isinstance(truth, TruthRecipe) else load_truth(truth)
    runs = [open_result(path) for path in (run, against, glance) if path is not None]
    names, missing = _names(runs[0], split, part)
    gathered = _Gathered.of(runs, recipe, names, dense=against is not None)
    by_run = [_summaries(images, threshold, least_px) for images in gathered.qualities]
    fine = by_run[1] if against is not None else by_run[0]
    checked = _gate(fine, by_run[-1]) if glance is not None else None
    return Evaluation(
        run=str(run),
        part=None if split is None else part,
        downsample=tuple(sorted(gathered.downsamples)),
        images=names,
        classes=by_run[0],
        cost=_costs(Path(run), [runs[0][name] for name in names]),
        agreement=gathered.agreement if against is not None else None,
        kept={} if against is None else _kept(by_run[0], by_run[1], checked),
        gate=checked,
        notes=tuple(_notes(gathered.qualities[0], runs[0], missing, threshold)),
    )


def _names(
    result: Result, split: Path | str | None, part: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Images to compare, and images of the part that the run lacks."""
    if split is None:
        wanted = result.images
    else:
        if part not in PARTS:
            raise TruthError(f"a part is one of {', '.join(PARTS)}; found {part!r}")
        wanted = read_split(split)[part]
    names = tuple(name for name in wanted if name in result.images)
    if not names:
        where = "the run" if split is None else f"part {part!r} of {split}"
        raise TruthError(
            f"images with a result are needed; found none of {where} among "
            f"{', '.join(result.images[:5]) or 'no results'}; check the run and the names"
        )
    return names, tuple(name for name in wanted if name not in result.images)


@dataclass(slots=True, eq=False)
class _Gathered:
    """What was counted of every image, run by run."""

    qualities: list[list[ImageQuality]]
    """Per run, of every image."""
    dense: bool
    """Whether the second run is the one that the first is compared with."""
    downsamples: set[float] = field(default_factory=set)
    """Of the grids that images were compared on."""
    agreement: Agreement = field(default_factory=Agreement)
    """Of the first run with the second, all images together."""

    @classmethod
    def of(
        cls, runs: Sequence[Result], recipe: TruthRecipe, names: Sequence[str], dense: bool
    ) -> _Gathered:
        gathered = cls([[] for _ in runs], dense)
        for name in names:
            gathered._take(name, [_answer(result, name) for result in runs], recipe)
        return gathered

    def _take(self, name: str, answers: Sequence[Answer], recipe: TruthRecipe) -> None:
        plane = finest(answers)
        self.downsamples.add(plane.downsample)
        dense = answers[1] if self.dense else None
        with open_truth(recipe, name) as truth:
            for number, answer in enumerate(answers):
                other = dense if number == 0 else None
                quality = compare_image(answer, truth, plane, other)
                self.qualities[number].append(quality)
                self.agreement += quality.agreement or Agreement()


def finest(answers: Sequence[Answer]) -> PlaneSpec:
    """The grid of the finest answer."""
    return min((answer.plane for answer in answers), key=lambda plane: plane.downsample)


def _answer(result: Result, name: str) -> Answer:
    if name not in result.images:
        raise TruthError(
            f"every run must hold the images that are compared; found no result of {name!r} in one "
            "of them; run it there, too, or compare a part that all hold"
        )
    return Answer(result[name])


def _summaries(
    images: Sequence[ImageQuality], rule: Rule, least_px: int
) -> tuple[ClassSummary, ...]:
    return summarise(images, thresholds_of(images, rule), least_px)


def overall(classes: Sequence[ClassSummary]) -> ClassSummary:
    """The row in which all classes are one; of a single class, its own."""
    return classes[-1]


def _gate(fine: Sequence[ClassSummary], glance: Sequence[ClassSummary]) -> Gate:
    theirs, coarse = (overall(one).values("average_precision") for one in (fine, glance))
    return gate(theirs, coarse)


def _kept(
    classes: Sequence[ClassSummary], dense: Sequence[ClassSummary], checked: Gate | None
) -> dict[str, Kept]:
    theirs = {one.name: one for one in dense}
    return {one.name: _kept_of(one, theirs[one.name], checked) for one in classes}


def _kept_of(one: ClassSummary, dense: ClassSummary, checked: Gate | None) -> Kept:
    precision, theirs = (s.pooled.average_precision for s in (one, dense))
    defined = theirs > 0 and (checked is None or checked.open)
    recalls, before = one.values("object_recall"), dense.values("object_recall")
    return Kept(
        dense=dense,
        gain=paired_interval(one.values("average_precision"), dense.values("average_precision")),
        precision_kept=precision / theirs if defined else None,
        recall_change=spread({name: recalls[name] - before[name] for name in recalls}),
    )


def _costs(run: Path, results: Sequence[Result]) -> tuple[PassCost, ...]:
    """Of the images compared; nothing where the results were taken out of their run."""
    root = run if RunFolder(run).images.exists() else run.absolute().parent.parent
    if not RunFolder(root).images.exists():
        return ()
    return pass_costs(
        read_tally(root, told=sys.maxsize).images, [result.plan for result in results]
    )


def _notes(
    images: Sequence[ImageQuality], result: Result, missing: Sequence[str], rule: Rule
) -> Iterator[str]:
    if rule == "best":
        yield "thresholds are the best on these very images: Dice and recall are upper bounds"
    if missing:
        yield f"not in the run, so not compared: {', '.join(missing)}"
    if open_ones := [image.name for image in images if not result[image.name].complete]:
        yield f"unfinished, compared as far as they are: {', '.join(open_ones)}"
    if holes := [image for image in images if image.answered < 1]:
        lowest = min(holes, key=lambda image: image.answered)
        yield (
            f"pixels that no pass answered are left out: of {len(holes)} images, at most "
            f"{1 - lowest.answered:.2%} ({lowest.name})"
        )


def read_threshold(text: str) -> Rule:
    """A number, 'best', or a file that ``write_thresholds`` wrote.

    Raises:
        TruthError: none of the three.
    """
    if text == "best":
        return "best"
    try:
        return float(text)
    except ValueError:
        pass
    try:
        tree = json.loads(Path(text).read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in tree["thresholds"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise TruthError(
            f"a threshold is a number, 'best', or a file written by --write-thresholds; found "
            f"{text!r} ({error})"
        ) from error


def write_thresholds(path: Path, evaluation: Evaluation) -> None:
    """Write the thresholds of an evaluation down, and which images they were chosen on."""
    tree = {
        "thresholds": {one.name: one.threshold for one in evaluation.classes},
        "run": evaluation.run,
        "part": evaluation.part,
        "images": len(evaluation.images),
    }
    write_whole(path, json.dumps(tree, indent=1))
