"""Results beside truth: perfect and empty answers, coverage, cost, dense runs, the command line."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Lab, pass_of, several_passes
from PIL import Image

from saccade.jobs import RunSummary, evaluate
from saccade.jobs.cli import main
from saccade.jobs.commands.words import screen
from saccade.jobs.evaluations.evaluating import read_threshold, write_thresholds
from saccade.jobs.evaluations.files import images_csv, write_folder
from saccade.pipeline.errors import SourceError, TruthError
from saccade.pipeline.geometry import Box
from saccade.pipeline.quality.counting import ScoreCounts
from saccade.pipeline.quality.curves import average_precision
from saccade.pipeline.result import open_result
from saccade.pipeline.truth import ClassTruth, TruthRecipe, open_truth

SHAPE = (203, 257)
SPOTS = {
    "big": Box(20, 30, 60, 80),
    "edge": Box(190, 250, 203, 257),
    "dot": Box(100, 101, 101, 102),
}
PLANTED = {"left": (tuple(SPOTS.values())), "right": (Box(0, 200, 9, 211),)}


def mask_of(boxes: tuple[Box, ...]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for box in boxes:
        mask[box.slices] = True
    return mask


MASKS = {name: mask_of(boxes) for name, boxes in PLANTED.items()}


@pytest.fixture
def truth(tmp_path: Path) -> TruthRecipe:
    """Of two images, as PNG files."""
    folder = tmp_path / "truth"
    folder.mkdir()
    for name, mask in MASKS.items():
        Image.fromarray(mask.astype(np.uint8) * 3).save(folder / f"{name}.png")
    (folder / "truth.yaml").write_text("path: '{name}.png'\nclasses: {channel 0: {bit: 2}}")
    return TruthRecipe(path=str(folder / "{name}.png"), classes={"channel 0": ClassTruth(bit=2)})


def run_over(
    lab: Lab, images: Mapping[str, np.ndarray], *passes: dict[str, Any], scores: str = "uint8"
) -> RunSummary:
    summary = lab.run_all(several_passes(list(passes), scores), images)
    assert set(summary.complete) == set(images), summary.quarantined
    return summary


def dense(downsample: float = 1) -> dict[str, Any]:
    return pass_of("dense", "echo", downsample, tile=16)


def pictures(**drawn: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[:, :, None] for name, array in drawn.items()}


PERFECT = pictures(**{name: mask.astype(np.uint8) * 255 for name, mask in MASKS.items()})
EMPTY = pictures(**{name: np.zeros(SHAPE, np.uint8) for name in MASKS})
NOISY = pictures(
    **{
        name: np.random.default_rng(3).integers(0, 128, SHAPE, np.uint8)
        + mask.astype(np.uint8) * 90
        for name, mask in MASKS.items()
    }
)


@pytest.mark.parametrize("scores", ["uint8", "float32"])
def test_truth_as_its_own_prediction_is_perfect(lab: Lab, truth: TruthRecipe, scores: str) -> None:
    found = evaluate(run_over(lab, PERFECT, dense(), scores=scores).folder, truth)
    (one,) = found.classes
    assert (one.pooled.average_precision, one.pooled.dice) == (1, 1)
    assert (one.pooled.objects, one.pooled.object_recall) == (4, 1)
    assert one.pooled.calibration_error == pytest.approx(0)
    assert one.spread("dice").worst == 1
    assert one.pooled.truth_px == sum(mask.sum() for mask in MASKS.values())
    assert not found.notes


@pytest.mark.parametrize("downsample", [1, 2, 2.5])
def test_an_empty_prediction_is_worth_the_prevalence(
    lab: Lab, truth: TruthRecipe, downsample: float
) -> None:
    summary = run_over(lab, EMPTY, dense(downsample))
    found = evaluate(summary.folder, truth)
    (one,) = found.classes
    pixels = 0
    for name in MASKS:
        plane = open_result(summary.folder)[name].plan.last.plane
        with open_truth(truth, name) as opened:
            pooled = opened.on(plane, Box.of(plane.shape))
        pixels += pooled.size
        assert one.images[name].prevalence == pooled.mean()
        assert one.images[name].average_precision == pytest.approx(pooled.mean())
    assert found.downsample == (downsample,)
    assert one.pooled.average_precision == pytest.approx(one.pooled.prevalence)
    assert (one.pooled.object_recall, one.pooled.dice) == (0, 0)


def test_numbers_are_those_of_all_pixels_at_once_however_strips_are_cut(
    lab: Lab, truth: TruthRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_over(lab, NOISY, dense()).folder
    monkeypatch.setattr("saccade.pipeline.quality.image.STRIP_SAMPLES", 257 * 11)
    (one,) = evaluate(folder, truth).classes
    for name, mask in MASKS.items():
        stored = np.asarray(open_result(folder)[name].fused)
        counts = ScoreCounts.none(1, stored.dtype).counted(stored, mask[None])
        expected = average_precision(counts.negatives[0], counts.positives[0])
        assert one.images[name].average_precision == pytest.approx(expected)
    monkeypatch.undo()
    (whole,) = evaluate(folder, truth).classes
    assert whole.images == one.images
    assert whole.pooled == one.pooled


def refining(fraction: float) -> tuple[dict[str, Any], dict[str, Any]]:
    select = {"by": "top_fraction", "fraction": fraction}
    return pass_of("glance", "echo", 4, tile=16), pass_of("fine", "echo", 1, tile=16, select=select)


def test_what_the_last_pass_saw_is_counted_at_level_0(lab: Lab, truth: TruthRecipe) -> None:
    summary = run_over(lab, NOISY, *refining(0.1))
    found = evaluate(summary.folder, truth)
    (one,) = found.classes
    for name, mask in MASKS.items():
        coverage = open_result(summary.folder)[name].coverage == 2
        seen = np.kron(coverage, np.ones((16, 16), bool))[: SHAPE[0], : SHAPE[1]]
        assert one.images[name].pixels_seen == (mask & seen).sum() / mask.sum()
        each = [(seen[box.slices]).any() for box in PLANTED[name]]
        assert one.images[name].objects_seen == np.mean(each)
    assert 0 < one.pooled.pixels_seen <= 1


def test_cost_counts_halos_and_the_glance_in_whole_image_passes(
    lab: Lab, truth: TruthRecipe
) -> None:
    summary = run_over(lab, NOISY, *refining(0.1))
    glance, fine = evaluate(summary.folder, truth).cost
    cells = 2 * 13 * 17
    assert (glance.name, glance.visited, glance.tiles) == ("glance", 2 * 4 * 5, 2 * 4 * 5)
    assert (fine.name, fine.tiles) == ("fine", cells)
    assert fine.visited == 2 * int(np.ceil(0.1 * cells / 2))
    pixels = sum(image.pixels["fine"] for image in summary.tally.images.values())
    assert fine.whole_image_passes == pixels / (2 * SHAPE[0] * SHAPE[1])
    # windows of one size overlap at the image's edge, which costs, too
    assert glance.whole_image_passes > 1 / 16
    assert glance.source_pixels == glance.pixels * 16
    assert fine.seconds


def test_a_run_keeps_all_of_itself_and_a_glance_is_compared_on_the_fine_grid(
    lab: Lab, truth: TruthRecipe
) -> None:
    fine = run_over(lab, NOISY, dense()).folder
    glance = run_over(lab, NOISY, dense(4)).folder
    few = run_over(lab, NOISY, *refining(0.0)).folder
    same = evaluate(fine, truth, against=fine)
    assert same.agreement is not None
    assert (same.agreement.labels_equal, same.agreement.mean_difference) == (1, 0)
    assert same.kept["channel 0"].precision_kept == 1
    assert same.kept["channel 0"].recall_change.worst == 0
    found = evaluate(glance, truth, against=fine, glance=glance)
    assert found.downsample == (1,)
    assert found.gate is not None
    assert found.gate.gain.mean == -found.kept["channel 0"].gain.mean
    # a run that refines nothing answers as the glance does
    refined = evaluate(few, truth).classes[0].pooled
    assert refined.average_precision == found.classes[0].pooled.average_precision


def test_retention_is_undefined_where_dense_fine_is_no_better(lab: Lab, truth: TruthRecipe) -> None:
    fine = run_over(lab, NOISY, dense()).folder
    found = evaluate(fine, truth, against=fine, glance=fine)
    assert found.gate is not None
    assert not found.gate.open
    assert found.kept["channel 0"].precision_kept is None


def test_an_unfinished_run_is_compared_as_far_as_it_is(
    lab: Lab, truth: TruthRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = run_over(lab, PERFECT, *refining(0.1))
    monkeypatch.setattr("saccade.pipeline.result.Result.complete", property(lambda self: False))
    found = evaluate(summary.folder, truth)
    assert found.notes[0].startswith("unfinished")
    assert found.classes[0].pooled.objects == 4


def test_thresholds_chosen_on_one_part_are_used_on_another(
    lab: Lab, truth: TruthRecipe, tmp_path: Path
) -> None:
    folder = run_over(lab, NOISY, dense()).folder
    split = tmp_path / "split.csv"
    split.write_text("name,part\nleft,validation\nright,test\ngone,test\n")
    chosen = evaluate(folder, truth, split=split, part="validation", threshold="best")
    assert (chosen.images, chosen.part) == (("left",), "validation")
    assert "upper bounds" in chosen.notes[0]
    write_thresholds(tmp_path / "t.json", chosen)
    rule = read_threshold(str(tmp_path / "t.json"))
    tested = evaluate(folder, truth, split=split, threshold=rule)
    assert tested.images == ("right",)
    assert tested.classes[0].threshold == chosen.classes[0].threshold
    assert "gone" in tested.notes[0]
    assert (read_threshold("0.25"), read_threshold("best")) == (0.25, "best")
    with pytest.raises(TruthError, match="a threshold is a number"):
        read_threshold("half")
    with pytest.raises(TruthError, match="found none for channel 0"):
        evaluate(folder, truth, threshold={"another": 0.5})


def test_what_can_not_be_compared_is_refused(lab: Lab, truth: TruthRecipe, tmp_path: Path) -> None:
    folder = run_over(lab, PERFECT, dense()).folder
    (tmp_path / "split.csv").write_text("name,part\nelse,test\n")
    with pytest.raises(TruthError, match="images with a result"):
        evaluate(folder, truth, split=tmp_path / "split.csv")
    with pytest.raises(TruthError, match="a part is one of"):
        evaluate(folder, truth, split=tmp_path / "split.csv", part="tests")
    Path(truth.path.replace("{name}", "right")).unlink()
    with pytest.raises(SourceError, match="no such file"):
        evaluate(folder, truth)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(truth.path.replace("{name}", "right"))
    with pytest.raises(TruthError, match="must have its shape"):
        evaluate(folder, truth)


def test_tables_for_programs_hold_every_image_and_the_curve(
    lab: Lab, truth: TruthRecipe, tmp_path: Path
) -> None:
    found = evaluate(run_over(lab, NOISY, dense()).folder, truth)
    rows = list(csv.DictReader(images_csv(found).splitlines()))
    assert [row["image"] for row in rows] == ["", "left", "right"]
    assert float(rows[0]["average_precision"]) == pytest.approx(
        found.classes[0].pooled.average_precision, rel=1e-5
    )
    paths = write_folder(tmp_path / "tables", found)
    tree = json.loads(paths[0].read_text())
    assert tree["classes"]["channel 0"]["images"]["left"]["objects"] == 3
    points = list(csv.DictReader(paths[2].read_text().splitlines()))
    assert float(points[-1]["recall"]) == 1


def test_the_command_prints_tables_or_json(
    lab: Lab,
    truth: TruthRecipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = run_over(lab, NOISY, *refining(0.2)).folder
    file = Path(truth.path).parent / "truth.yaml"
    monkeypatch.setattr(screen, "_width", 200)

    def call(*more: str) -> str:
        words = ["saccade", "evaluate", str(folder), "--truth", str(file), *more]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return capsys.readouterr().out

    page = call("--against", str(folder), "--glance", str(folder))
    assert "whole-image passes" in page
    assert "retention is undefined" in page
    chosen = tmp_path / "t.json"
    tree = json.loads(call("--json", "--write-thresholds", str(chosen), "-o", str(tmp_path / "o")))
    assert tree["images"] == ["left", "right"]
    assert (tmp_path / "o" / "curves.csv").is_file()
    threshold = json.loads(chosen.read_text())["thresholds"]["channel 0"]
    again = json.loads(call("--json", "--threshold", str(chosen)))
    assert again["classes"]["channel 0"]["threshold"] == threshold


def test_the_lesions_of_a_real_photograph_are_their_own_perfect_prediction(
    lab: Lab, data: Path
) -> None:
    bits = np.asarray(Image.open(data / "idrid" / "IDRiD_55_bits.png"))
    kinds = {f"channel {k}": ClassTruth(bit=bit) for k, bit in enumerate((1, 2, 4, 8))}
    recipe = TruthRecipe(path=str(data / "idrid" / "{name}_bits.png"), classes=kinds)
    drawn = np.stack([(bits & bit) != 0 for bit in (1, 2, 4, 8)], axis=2).astype(np.uint8) * 255
    model = pass_of("dense", "echo", 1, tile=512, options={"classes": 4})
    recipe_tree = several_passes([model], "uint8", chunk=512, shard=2048)
    for image, expected in ((drawn, 1.0), (np.zeros_like(drawn), None)):
        folder = lab.run_all(recipe_tree, {"IDRiD_55": image}).folder
        found = evaluate(folder, recipe)
        assert [one.name for one in found.classes] == [*kinds, "any"]
        for one in found.classes:
            if one.pooled.truth_px == 0:
                continue
            worth = one.pooled.prevalence if expected is None else expected
            assert one.pooled.average_precision == pytest.approx(worth)
            assert one.pooled.dice == (expected or 0)
            assert one.pooled.object_recall == (expected or 0)
