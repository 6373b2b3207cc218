"""Training over rasters: a model is shown what a run shows it, and learns nothing of no data."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d
from training import NODATA, STRIPS, raster, tree, write_config, write_raster, write_rasters

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.jobs.training import claim, gather, job_of
from saccade.pipeline.errors import SourceError
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.plan import Window
from saccade.pipeline.resolve import seen_by
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.level_sweep import Blocks
from saccade.pipeline.sources.plane import Plane
from saccade.workers.averaging import as_passes_read
from saccade.workers.device import Predictor
from saccade.workers.folder import RunFolder
from saccade.workers.reading import read_window
from saccade.workers.training import frozen as freezing
from saccade.workers.training.batch import collate
from saccade.workers.training.card import Facts, leave_behind, recipe_of_weights, weight_files
from saccade.workers.training.forward import PassAnswer, answer_batch, losses_of
from saccade.workers.training.groups import Draw, Hardest
from saccade.workers.training.reading import TrainingImage
from saccade.workers.training.sampling import plan_round
from saccade.workers.training.trainer import Moment, Trainer

pytest.importorskip("rasterio", reason="needs the extra 'geo'")

OPTIONS = RunOptions(workers="local:1", device="cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
ALL = ["glance", "focus", "refine"]
PERCENTILES = {"by": "percentiles", "low": 3, "high": 96}
LOW_HIGH = {"by": "fixed", "low": [500, 900, 0, 700], "high": [4000, 5000, 3000, 9000]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rasters(tmp_path_factory.mktemp("rasters"))


def config(
    bands: list[int | str] | None = None,
    scaled: bool = False,
    context: tuple[float, ...] = (),
    passes: list[dict[str, Any]] | None = None,
    **model: Any,
) -> dict[str, Any]:
    """What of a configuration says how samples are given to a model."""
    words = {"scaled": scaled} | ({"bands": bands} if bands else {})
    options = {"channels": len(bands) if bands else 4, "context": list(context)}
    return {
        "passes": [{**one, **words} for one in passes or tree()["passes"]],
        "model": {"source": "net.py:tiny", "options": options, **model},
    }


def trainer(images: Path, out: Path, **changes: Any) -> Trainer:
    output = {"folder": str(out), "every": 3, "validation_groups": 2}
    materials = gather(write_config(images, f"{out.name}.yaml", output=output, **changes))
    claim(materials, force=False)
    return Trainer(job_of(materials, "cpu"))


def planned_by_a_run(one: Trainer, folder: Path) -> ImagePlan:
    """How a run of what is trained lays out, and measures, the first training image."""
    files = weight_files(one.learners)
    leave_behind(one.job, one.run(), Facts("", {}))
    recipe = recipe_of_weights(one.job, one.learners, files)
    entry = one.job.images[0]
    summary = run(recipe, [entry], folder, OPTIONS, model_folder=one.job.out)
    assert summary.complete == (entry.name,), summary.quarantined
    return RunFolder(folder).read_image_plan(entry.name)


WORDS = {
    "as stored": config(),
    "numbers of bands": config(bands=[4, 1, 3]),
    "names of bands": config(bands=["blue", "nir"]),
    "scaled": config(scaled=True),
    "percentiles": config(normalise=PERCENTILES),
    "mean and deviation": config(normalise={"by": "standard"}),
    "fixed low and high": config(normalise=LOW_HIGH),
    "fixed mean": config(normalise={"by": "fixed", "mean": [2000], "std": [900]}),
    "kept": config(nodata="keep"),
    "kept and scaled": config(scaled=True, nodata="keep"),
    "stored overviews": config(normalise=PERCENTILES) | {"overviews": "stored"},
    "all of them": config(bands=[3, 2], scaled=True, context=(2.5,), normalise=PERCENTILES),
    "wider views": config(context=(2.0,), normalise={"by": "standard"}),
}


@pytest.mark.parametrize("words", list(WORDS))
def test_a_crop_is_what_a_run_shows_a_model_of_the_same_window(
    images: Path, tmp_path: Path, words: str
) -> None:
    schedule = [{"steps": 1, "train": ALL}]
    one = trainer(images, tmp_path / "out", schedule=schedule, **WORDS[words])
    plan = planned_by_a_run(one, tmp_path / "run")
    known = one.images[0]
    assert known.plan.statistics == plan.statistics
    assert [p.inputs for p in known.plan.passes] == [p.inputs for p in plan.passes]
    generator = np.random.default_rng(7)
    for scale in (1.0, 0.93, 1.08):
        with TrainingImage(known, one.job.truth, one.sights, scale) as image:
            whole = bool(generator.integers(2))
            image.keep_whole(100 if whole else 0)
            centres = [*generator.uniform(0, (240, 320), (5, 2)), (2.0, 1.0), (239.0, 319.0)]
            for y, x in centres:
                draw = Draw(0, (float(y), float(x)))
                assert_as_in_a_run(one, plan, image, draw, tmp_path / "levels")


def assert_as_in_a_run(
    one: Trainer, plan: ImagePlan, image: TrainingImage, draw: Draw, levels: Path
) -> None:
    """The tensors of a crop of every pass, and those that a run makes of the same windows."""
    scales = [learner.spec.scale for learner in one.learners]
    batch = collate([image.group(draw, 3)], scales, False, 0.0, "cpu")
    overviews = one.job.config.overviews
    with closing(as_passes_read(open_source(plan.uri), overviews, levels)) as source:
        for part, layout, learner in zip(batch.passes, plan.passes, one.learners, strict=True):
            place = part.places[0]
            layout = replace(layout, plane=place.plane)
            plane = Plane(seen_by(layout, source), place.plane)
            window = read_window(plane, layout, Window(place.box, place.box))
            views = Predictor(learner.model, layout, "cpu").views([window])
            assert torch.equal(part.pixels, views.pixels)
            assert len(part.context) == len(views.context) == len(layout.context)
            assert all(map(torch.equal, part.context, views.context))
            assert (part.valid is None) == (views.valid is None)
            assert part.valid is None or torch.equal(part.valid, views.valid)


def test_colours_change_what_holds_data_and_nothing_else(images: Path, tmp_path: Path) -> None:
    one = trainer(images, tmp_path / "out", **WORDS["mean and deviation"])
    with TrainingImage(one.images[0], one.job.truth, one.sights) as image:
        plain, coloured = (
            collate([image.group(Draw(0, (90.0, 160.0), colour_seed=seed), 3)], [None] * 3, *rest)
            for seed, rest in ((None, (False, 0.0, "cpu")), (5, (False, 0.3, "cpu")))
        )
        held = [crop.pixels.valid for crop in image.group(Draw(0, (90.0, 160.0)), 3).crops]
    for a, b, valid in zip(plain.passes, coloured.passes, held, strict=True):
        assert valid is not None
        where = torch.from_numpy(valid).permute(2, 0, 1)[None]
        assert not where.all()
        assert torch.equal(a.pixels[~where], b.pixels[~where])
        assert (a.pixels[where] != b.pixels[where]).float().mean() > 0.9


def after_a_kill(images: Path, out: Path, **changes: Any) -> Trainer:
    """A training that died between two checkpoints, begun again."""

    def observe(moment: Moment) -> None:
        if moment.step == 5:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        trainer(images, out, **changes).run(observe=observe)
    again = trainer(images, out, **changes)
    assert again.resume()
    return again


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_killed_training_goes_on_with_the_numbers_it_began_with_to_the_same_weights(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = WORDS["all of them"]
    straight = trainer(images, tmp_path / "straight", **words)
    straight.run()
    measured: list[str] = []
    with_inputs = freezing.with_inputs

    def noted(plan: ImagePlan, *rest: Any) -> ImagePlan:
        measured.append(plan.name)
        return with_inputs(plan, *rest)

    monkeypatch.setattr(freezing, "with_inputs", noted)
    again = after_a_kill(images, tmp_path / "killed", **words)
    assert sorted(measured) == ["i0", "i1", "i2", "i3"]
    again.run()
    assert again.step == straight.step
    assert same(again.average.held, straight.average.held)
    for name in measured:
        plans = [RunFolder(tmp_path / out).image_plan(name) for out in ("straight", "killed")]
        assert plans[0].read_text() == plans[1].read_text()


def test_levels_are_averaged_once_for_all_sizes_and_resumed_trainings(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[str] = []
    sweep = Blocks.sweep

    def noted(self: Blocks, source: Any, targets: Any) -> None:
        swept.append(source.uri)
        sweep(self, source, targets)

    monkeypatch.setattr(Blocks, "sweep", noted)
    words = WORDS["percentiles"] | {"augment": {"scale": 0.3}}
    after_a_kill(images, tmp_path / "out", **words).run()
    assert len(swept) == len(set(swept)) == 4


def test_an_image_that_changed_since_is_refused(images: Path, tmp_path: Path) -> None:
    mine = write_rasters(tmp_path / "mine")
    trainer(mine, tmp_path / "out", **WORDS["percentiles"])
    write_raster(mine / "i1.tif", raster(77)[0])
    with pytest.raises(SourceError, match="put the old file back"):
        trainer(mine, tmp_path / "out", **WORDS["percentiles"])


def test_starting_over_measures_anew(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    one = trainer(images, out, **WORDS["percentiles"])
    other = WORDS["percentiles"] | {"seed": 3}
    output = {"folder": str(out), "every": 3, "validation_groups": 2}
    claim(gather(write_config(images, "other.yaml", output=output, **other)), force=True)
    assert not RunFolder(out).image_plan(one.images[0].entry.name).exists()


def batch_of(one: Trainer) -> Any:
    with one._feeder() as feeder:
        rounds = one._rounds(feeder)
        rounds.begin(0, one.tables)
        return one._batch(rounds.take(0))


def lost_scores(part: Any, stride: int = 2) -> torch.Tensor:
    """``(N, 1, h, w)`` bool: scores below which some pixel holds no data."""
    return max_pool2d((~part.valid).float(), stride) > 0


HARD = {"groups": 8, "per_image": 8, "lesion_share": 0.9, "hard_share": 0.0}


@pytest.mark.parametrize("loss", [{"kind": "bce", "dice": 0.5}, {"kind": "focal"}])
def test_what_holds_no_data_has_no_gradient_and_changes_no_loss(
    images: Path, tmp_path: Path, loss: dict[str, Any]
) -> None:
    words = WORDS["percentiles"] | {"distil": {"fine_to_coarse": 0.5}}
    one = trainer(images, tmp_path / "out", loss=loss, sampling=HARD, **words)
    batch, learns = batch_of(one), (True, True, True)
    kept = [np.ones(len(batch), bool)] * 3
    answers = answer_batch(one.learners, batch, learns, norms_frozen=False, guidance_kept=kept)
    for said in answers:
        said.logits.retain_grad()
    losses = losses_of(one.job.config, one.learners, batch, answers, learns)
    losses.total.backward()
    lost = [lost_scores(part) for part in batch.passes]
    assert all(where.any() and not where.all() for where in lost)
    for said, where in zip(answers, lost, strict=True):
        assert said.logits.grad is not None
        assert not said.logits.grad[where.expand_as(said.logits)].any()
        assert said.logits.grad[~where.expand_as(said.logits)].any()
    void = [~(max_pool2d(part.valid.float(), 2) > 0) for part in batch.passes]
    assert all(where.any() for where in void)
    changed = [_elsewhere(*three) for three in zip(answers, lost, void, strict=True)]
    flipped = replace(
        batch,
        passes=tuple(
            replace(part, truth=torch.where(where, 1 - part.truth, part.truth))
            for part, where in zip(batch.passes, lost, strict=True)
        ),
    )
    again = losses_of(one.job.config, one.learners, flipped, changed, learns)
    assert again.parts == pytest.approx(losses.parts, rel=1e-6)  # sums in another order


def _elsewhere(said: PassAnswer, lost: torch.Tensor, void: torch.Tensor) -> PassAnswer:
    """Another answer where some data is lacking, and handed on where all of it is."""
    logits = torch.where(lost, said.logits + 3, said.logits)
    scores = torch.where(void, 1 - said.scores, said.scores)
    return replace(said, logits=logits, scores=scores)


def test_guidance_is_nothing_where_no_data_is_as_in_a_run(images: Path, tmp_path: Path) -> None:
    one = trainer(images, tmp_path / "out", sampling=HARD, augment={"scale": 0}, **config())
    batch = batch_of(one)
    given: list[torch.Tensor] = []
    focus = one.learners[1].model.module
    note = lambda _, __, words: given.append(words["guidance"])  # noqa: E731
    focus.register_forward_pre_hook(note, with_kwargs=True)
    kept = [np.ones(len(batch), bool)] * 3
    answer_batch(one.learners, batch, (False,) * 3, norms_frozen=True, guidance_kept=kept)
    inside = max_pool2d(batch.passes[1].valid.float(), 11, 1, 5) == 0
    assert inside.any()
    assert not given[0][inside.expand_as(given[0])].any()
    assert given[0].any()


def test_truth_where_no_data_is_changes_neither_weights_nor_metrics(tmp_path: Path) -> None:
    found = []
    for name, inside in (("a", True), ("b", False)):
        folder = write_rasters(tmp_path / name, truth_in_hole=inside)
        one = trainer(folder, tmp_path / f"out-{name}", augment={"scale": 0}, **config())
        found.append((one.run().metrics, dict(one.average.held)))
    assert found[0][0] == found[1][0]
    assert same(found[0][1], found[1][1])


def test_no_crop_is_drawn_that_holds_no_data(tmp_path: Path) -> None:
    pixels, _ = raster(0)
    pixels[:, :] = np.where(STRIPS[..., None], pixels, NODATA)
    folder = write_rasters(tmp_path / "set")
    for number in range(4):
        write_raster(folder / f"i{number}.tif", pixels)
    sampling = {"groups": 8, "per_image": 8, "lesion_share": 0.3, "hard_share": 0.0, "jitter": 1}
    one = trainer(folder, tmp_path / "out", sampling=sampling, **config())
    settings = one.job.config
    plans = [
        plan_round(3, number, one.indices, Hardest(), settings.sampling, settings.augment, 8)
        for number in range(4)
    ]
    for visit in [*one.survey, *(visit for plan in plans for visit in plan.visits)]:
        with TrainingImage(one.images[0], one.job.truth, one.sights, visit.scale) as image:
            for draw in visit.draws:
                for crop in image.group(draw, 3).crops:
                    assert crop.valid is None or crop.valid.any()


def test_an_image_that_could_lack_data_and_does_not_is_learned_from_as_any(tmp_path: Path) -> None:
    found = []
    for name, nodata in (("a", None), ("b", NODATA)):
        folder = write_rasters(tmp_path / name)
        for number in range(4):
            pixels = np.minimum(raster(number)[0], NODATA - 1)
            write_raster(folder / f"i{number}.tif", pixels, nodata)
        one = trainer(folder, tmp_path / f"out-{name}", **config())
        one.run()
        found.append(dict(one.average.held))
    assert same(*found)


def test_an_image_without_any_data_is_named(tmp_path: Path) -> None:
    folder = write_rasters(tmp_path / "set")
    write_raster(folder / "i1.tif", np.full_like(raster(0)[0], NODATA))
    with pytest.raises(SourceError, match=r"i1\.tif.*leave 'i1' out of the split"):
        trainer(folder, tmp_path / "out", **config())


def test_words_left_out_are_no_part_of_what_a_training_is(images: Path) -> None:
    identity = gather(write_config(images)).config.identity()
    assert "overviews" not in identity
    assert all(not {"bands", "scaled"} & set(one) for one in identity["passes"])
    stated = gather(write_config(images, **WORDS["all of them"])).config.identity()
    assert [one["bands"] for one in stated["passes"]] == [[3, 2]] * 3
    assert [one["scaled"] for one in stated["passes"]] == [True] * 3
