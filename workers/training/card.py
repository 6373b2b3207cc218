"""What is left behind: weights, the card that says what they are, a recipe that runs them.

Says nothing of the machine: the same training leaves the same card, but for the seconds it took.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saccade.pipeline.models.choice import BUILTIN
from saccade.pipeline.recipe import ModelRecipe, Recipe
from saccade.pipeline.recipe_file import recipe_text
from saccade.workers.folder import write_whole
from saccade.workers.training.checkpoint import write_weights
from saccade.workers.training.config import TrainPass
from saccade.workers.training.learners import Learners, recipe_of
from saccade.workers.training.running import recipe_to_run
from saccade.workers.training.trainer import Trained, TrainJob
from saccade.workers.training.validating import mean_of

WEIGHTS, CARD, CARD_JSON, RECIPE = "weights.safetensors", "card.md", "card.json", "recipe.yaml"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the card is told."""

    config_hash: str
    """Of all that decides the weights."""
    split: Mapping[str, int]
    """Images per part."""


def leave_behind(job: TrainJob, trained: Trained, facts: Facts) -> Path:
    """Write weights, card and recipe; the folder they are in."""
    job.out.mkdir(parents=True, exist_ok=True)
    files = weight_files(trained.learners)
    tree = card_of(job, trained, facts)
    header = {"card": json.dumps({k: tree[k] for k in ("title", "licence", "data", "config")})}
    state = trained.learners.state()
    for name, tensors in _by_file(trained.learners, files, state).items():
        write_weights(job.out / name, _as_type(tensors, job.config.output.weights), header)
    write_whole(job.out / CARD_JSON, json.dumps(tree, indent=1))
    write_whole(job.out / CARD, card_text(tree))
    write_whole(job.out / RECIPE, recipe_text(recipe_of_weights(job, trained.learners, files)))
    return job.out


def weight_files(learners: Learners) -> dict[str, str]:
    """Per pass, the file that holds the weights of its module, no less and no more.

    Passes whose modules have the same tensors share a file, the last pass's is the plain name.
    """
    files: dict[str, str] = {}
    names: dict[tuple[str, frozenset[str]], str] = {}
    for one in reversed(list(learners)):
        key = one.weights, frozenset(one.model.module.state_dict())
        plain = WEIGHTS if not names else f"weights-{one.name}.safetensors"
        files[one.name] = names.setdefault(key, plain)
    return files


def _by_file(
    learners: Learners, files: Mapping[str, str], state: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    held: dict[str, dict[str, Tensor]] = {}
    for one in learners:
        own = learners.weights_of(one.weights, state)
        held[files[one.name]] = {name: own[name] for name in one.model.module.state_dict()}
    return held


def _as_type(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    wanted = getattr(torch, kind)
    return {k: v.to(wanted) if v.is_floating_point() else v for k, v in tensors.items()}


def card_of(job: TrainJob, trained: Trained, facts: Facts) -> dict[str, Any]:
    """The card as JSON holds it."""
    config = job.config
    parameters = sum(weight.numel() for weight in trained.learners.parameters().values())
    return {
        "title": config.card.title,
        "licence": config.card.licence,
        "data": config.card.data,
        "notes": config.card.notes,
        "classes": {one.name: list(one.spec.classes) for one in trained.learners},
        "passes": {one.name: str(one.resolution) for one in config.passes},
        "models": {one.name: recipe_of(config, one).source for one in config.passes},
        "given": {one.name: _given(one, recipe_of(config, one)) for one in config.passes},
        "parameters": parameters,
        "split": dict(facts.split),
        "trained_on": config.data.train,
        "average_precision": trained.metrics,
        "measured_on": config.data.validation if trained.metrics else None,
        "crops_per_image": config.output.validation_groups,
        "seed": config.seed,
        "steps": trained.steps,
        "groups_per_step": config.sampling.groups,
        "seconds": round(trained.seconds),
        "config": facts.config_hash,
        "saccade": version("saccade"),
    }


def _given(one: TrainPass, model: ModelRecipe) -> str:
    """What a pass is given of samples, as a recipe says it; nothing where all is as usual."""
    parts = [] if one.bands is None else [f"bands {', '.join(map(str, one.bands))}"]
    parts += ["scaled"] if one.scaled else []
    if model.normalise is not None:
        values = model.normalise.model_dump(mode="json", exclude_none=True)
        parts.append("normalise " + ", ".join(f"{key} {values[key]}" for key in values))
    parts += [] if model.nodata == "fill" else [f"nodata {model.nodata}"]
    return "; ".join(parts)


def card_text(tree: Mapping[str, Any]) -> str:
    """The card for people, in Markdown."""
    facts = [
        ("Licence", tree["licence"]),
        ("Data", tree["data"]),
        ("Split", ", ".join(f"{count} {part}" for part, count in tree["split"].items())),
        ("Learned from", tree["trained_on"]),
        ("Passes", ", ".join(f"{name} ({where})" for name, where in tree["passes"].items())),
        ("Model", ", ".join(sorted(set(tree["models"].values())))),
        *(("Given", f"{name}: {text}") for name, text in tree["given"].items() if text),
        ("Parameters", f"{tree['parameters']:,}"),
        ("Steps", f"{tree['steps']} of {tree['groups_per_step']} groups"),
        ("Seconds", tree["seconds"]),
        ("Seed", tree["seed"]),
        ("Configuration", tree["config"]),
        ("saccade", tree["saccade"]),
    ]
    lines = [f"# {tree['title']}", "", *(f"* **{name}**: {value}" for name, value in facts)]
    lines += ["", *_metric_lines(tree)]
    if tree["notes"]:
        lines += ["", tree["notes"]]
    return "\n".join(lines) + "\n"


def _metric_lines(tree: Mapping[str, Any]) -> list[str]:
    metrics: Mapping[str, dict[str, float | None]] = tree["average_precision"]
    if not metrics:
        return ["Not measured: no validation images."]
    classes = list(dict.fromkeys(name for one in metrics.values() for name in one))
    rows = [
        f"Average precision on '{tree['measured_on']}', {tree['crops_per_image']} crops per image "
        "anywhere on the foreground, each pass on its own score grid with max-pooled truth:",
        "",
        "| pass | " + " | ".join([*classes, "mean"]) + " |",
        "|---" * (len(classes) + 2) + "|",
    ]
    for name, one in metrics.items():
        values = [*(one.get(each) for each in classes), mean_of(one)]
        told = ("" if value is None else f"{value:.3f}" for value in values)
        rows.append(f"| {name} | " + " | ".join(told) + " |")
    return rows


def recipe_of_weights(job: TrainJob, learners: Learners, files: Mapping[str, str]) -> Recipe:
    """A recipe that runs the weights on all tiles of every pass, from the folder they are in."""
    recipe = recipe_to_run(job.config, learners)
    passes = []
    for one in recipe.passes:
        model = _moved(one.model, job.model_folder, job.out)
        model = model.model_copy(update={"weights": files[one.name]})
        passes.append(one.model_copy(update={"model": model}))
    return recipe.model_copy(update={"passes": tuple(passes)})


def _moved(model: ModelRecipe, folder: Path, out: Path) -> ModelRecipe:
    """The same model, named from another folder."""
    source = model.source
    file = source.rpartition(":")[0]
    if not source.startswith(BUILTIN) and file.endswith(".py"):
        path = os.path.relpath((folder / file).resolve(), out.resolve())
        return model.model_copy(update={"source": f"{path}:{source.rpartition(':')[2]}"})
    return model
