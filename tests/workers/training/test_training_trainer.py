"""Training as a whole: it learns, it goes on exactly, every pass gets its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training import tree, write_config, write_set

from saccade.jobs.training import claim, gather, job_of
from saccade.pipeline.errors import Interrupted, RecipeError, TruthError
from saccade.workers.training.checkpoint import last_checkpoint
from saccade.workers.training.forward import answer_batch, losses_of
from saccade.workers.training.sampling import keeps_guidance
from saccade.workers.training.trainer import Moment, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = ["glance", "focus", "refine"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"))


def trainer(images: Path, out: Path, **changes: Any) -> Trainer:
    output = {"folder": str(out), "every": 3, "validation_groups": 2}
    materials = gather(write_config(images, f"{out.name}.yaml", output=output, **changes))
    claim(materials, force=False)
    return Trainer(job_of(materials, "cpu"))


def weights_after(one: Trainer, steps: int | None = None) -> dict[str, torch.Tensor]:
    """All tensors after so many steps more, as if it had been killed there."""
    if steps is None:
        one.run()
        return dict(one.average.held)
    end = one.step + steps
    with pytest.raises(Interrupted):
        one.run(stop=lambda: one.step == end)
    return dict(one.average.held)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_loss_falls_in_twenty_steps(images: Path, tmp_path: Path) -> None:
    seen: list[Moment] = []
    schedule = [{"steps": 20, "train": ALL}]
    trainer(images, tmp_path / "out", schedule=schedule).run(seen.append)
    for name in ALL:
        losses = [moment.losses[f"{name}/answer"] for moment in seen]
        assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_interrupted_and_resumed_gives_the_same_weights_to_the_bit(
    images: Path, tmp_path: Path
) -> None:
    straight = weights_after(trainer(images, tmp_path / "straight"))
    weights_after(trainer(images, tmp_path / "twice"), 3)
    again = trainer(images, tmp_path / "twice")
    assert again.resume()
    assert again.step == 3
    assert same(weights_after(again), straight)


def test_a_kill_between_checkpoints_repeats_the_steps_since_the_last(
    images: Path, tmp_path: Path
) -> None:
    straight = weights_after(trainer(images, tmp_path / "straight"))
    killed = trainer(images, tmp_path / "killed")
    with pytest.raises(RuntimeError, match="killed"):
        killed.run(observe=_kill_at(5))
    again = trainer(images, tmp_path / "killed")
    assert again.resume()
    assert again.step == 3
    assert same(weights_after(again), straight)
    steps = (tmp_path / "killed" / "log.jsonl").read_text().count('"step"')
    assert steps == 6


def _kill_at(step: int) -> Any:
    def observe(moment: Moment) -> None:
        if moment.step == step:
            raise RuntimeError("killed")

    return observe


@pytest.mark.parametrize("readers", [1, 3])
def test_the_number_of_reading_threads_changes_nothing(
    images: Path, tmp_path: Path, readers: int
) -> None:
    alone = weights_after(trainer(images, tmp_path / "two"))
    assert same(alone, weights_after(trainer(images, tmp_path / "other", readers=readers)))


def test_resuming_is_exact_across_rounds_with_hard_negatives(images: Path, tmp_path: Path) -> None:
    changes = {
        "schedule": [{"steps": 14, "train": ALL}],
        "sampling": {"groups": 4, "per_image": 3, "hard_share": 0.5, "lesion_share": 0.25},
    }
    straight = weights_after(trainer(images, tmp_path / "straight", **changes))
    for steps in (1, 4, 3):
        one = trainer(images, tmp_path / "pieces", **changes)
        one.resume()
        weights_after(one, steps)
    one = trainer(images, tmp_path / "pieces", **changes)
    one.resume()
    assert one.step == 8
    assert any(one.tables.current.places.values())
    assert same(weights_after(one), straight)


def gradients(one: Trainer, learns: tuple[bool, ...]) -> tuple[dict[str, float], Any]:
    """Size of every weight's gradient after one forward and backward pass."""
    with one._feeder() as feeder:
        rounds = one._rounds(feeder)
        rounds.begin(0, one.tables)
        batch = one._batch(rounds.take(0))
    kept = [keeps_guidance(0, 0, len(batch), i, 0.0) for i in range(len(batch.passes))]
    answers = answer_batch(one.learners, batch, learns, norms_frozen=False, guidance_kept=kept)
    losses = losses_of(one.job.config, one.learners, batch, answers, learns)
    losses.total.backward()
    sizes = {
        name: 0.0 if weight.grad is None else float(weight.grad.abs().sum())
        for name, weight in one.learners.parameters().items()
    }
    return sizes, losses


OWN_MODELS = [
    {**one, "model": {"source": "net.py:tiny", "options": {"seed": i}}}
    for i, one in enumerate(tree()["passes"])
]


def test_every_pass_gets_a_gradient(images: Path, tmp_path: Path) -> None:
    one = trainer(images, tmp_path / "out", passes=OWN_MODELS, model=None)
    sizes, losses = gradients(one, (True, True, True))
    for name in ALL:
        assert sizes[f"{name}/head.weight"] > 0
        assert f"{name}/answer" in losses.parts
    assert sizes["refine/guide.weight"] > 0


def test_a_pass_below_the_one_that_learns_is_frozen(images: Path, tmp_path: Path) -> None:
    one = trainer(
        images,
        tmp_path / "out",
        passes=OWN_MODELS,
        model=None,
        schedule=[{"steps": 6, "train": ["focus"]}],
    )
    before = {name: tensor.clone() for name, tensor in one.learners.state().items()}
    one.run()
    after = one.learners.state()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert {name.split("/")[0] for name in changed} == {"focus"}
    assert "focus/norm.running_mean" in changed


def test_guidance_carries_no_gradient_to_the_pass_before(images: Path, tmp_path: Path) -> None:
    heads = {"gain": 0, "confidence": 0}
    passes = [{**one, "loss_weight": 1.0 if i == 2 else 0.0} for i, one in enumerate(OWN_MODELS)]
    one = trainer(images, tmp_path / "out", passes=passes, model=None, heads=heads)
    sizes, _ = gradients(one, (True, True, True))
    assert sizes["refine/guide.weight"] > 0
    assert not any(size for name, size in sizes.items() if not name.startswith("refine"))


def test_shared_weights_are_one_tensor_also_where_options_differ(
    images: Path, tmp_path: Path
) -> None:
    passes = [{**one, "options": {"seed": i}} for i, one in enumerate(tree()["passes"])]
    one = trainer(images, tmp_path / "out", passes=passes)
    heads = [learner.model.module.head.weight for learner in one.learners]
    assert all(head is heads[0] for head in heads)
    assert len(one.learners.parameters()) == len(list(one.learners[0].model.module.parameters()))


def test_features_are_handed_on_where_the_model_takes_them(images: Path, tmp_path: Path) -> None:
    model = {"source": "net.py:tiny", "options": {"takes": True}}
    changes = {"model": model, "augment": {"scale": 0.2}}
    weights_after(trainer(images, tmp_path / "out", **changes))


def test_a_scaled_crop_is_told_the_pixel_size_that_was_asked_for(
    images: Path, tmp_path: Path
) -> None:
    one = trainer(images, tmp_path / "out", augment={"scale": 0.3})
    for learner in one.learners:
        learner.model.module.told.clear()  # of the trials on noise
    weights_after(one)
    for learner, asked in zip(one.learners, (4.0, 2.5, 1.0), strict=True):
        told = learner.model.module.told
        assert {float(size) for sizes in told for size in sizes} == {asked}


def test_the_last_checkpoints_are_kept(images: Path, tmp_path: Path) -> None:
    one = trainer(images, tmp_path / "out", schedule=[{"steps": 10, "train": ALL}])
    one.run()
    names = sorted(path.name for path in one.checkpoints.glob("*.safetensors"))
    assert names == ["step-000009.safetensors", "step-000010.safetensors"]
    held = last_checkpoint(one.checkpoints, "cpu")
    assert held is not None
    assert held.step == 10


def test_crops_that_the_model_can_not_take_are_refused(images: Path, tmp_path: Path) -> None:
    passes = [{**one, "crop": 36} for one in tree()["passes"]]
    with pytest.raises(RecipeError, match="multiple of 8"):
        trainer(images, tmp_path / "out", passes=passes)


def test_classes_without_truth_are_refused(images: Path, tmp_path: Path) -> None:
    model = {"source": "net.py:tiny", "options": {"classes": 2}}
    with pytest.raises(TruthError, match="spot1"):
        trainer(images, tmp_path / "out", model=model)
