"""What a run is: recipe, weights, schema. Written once to ``run.json``, compared ever after."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from saccade.pipeline.errors import ResumeRefused, StoreError
from saccade.pipeline.image_plan import SCHEMA_VERSION
from saccade.pipeline.models.loading import fingerprint
from saccade.pipeline.recipe import Recipe
from saccade.workers.folder import RunFolder, write_whole

LONGEST = 120
"""Characters of a value in a message."""
PACKAGES = ("saccade", "torch", "numpy", "zarr", "tifffile", "imagecodecs", "openslide-python")


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Everything but the images that decides the bytes of the results."""

    recipe: Mapping[str, Any]
    """The whole recipe, defaults spelled out."""
    model_hashes: Mapping[str, str]
    """Per pass, a hash of model code, options and weights."""
    device: str
    """Kind of device: 'cpu' or 'cuda'."""
    torch_threads: int = 1
    """Threads of one forward pass on a CPU: kernels may round differently with another number."""
    schema: int = SCHEMA_VERSION
    """Of plans and results."""

    @classmethod
    def of(cls, recipe: Recipe, model_folder: Path, device: str, torch_threads: int) -> RunIdentity:
        """What a recipe means today.

        Raises:
            ModelNotFound: a model file or its weights are missing.
        """
        hashes = {one.name: fingerprint(one.model, model_folder) for one in recipe.passes}
        return cls(recipe.model_dump(mode="json"), hashes, device.split(":")[0], torch_threads)

    def provenance(self) -> dict[str, Any]:
        """What every result says of its making."""
        return {
            "recipe": self.recipe,
            "model_hashes": self.model_hashes,
            "device": self.device,
            "versions": versions(),
        }

    def differences(self, other: RunIdentity) -> tuple[str, ...]:
        """One line per value in which two identities differ: ``place: then -> now``."""
        return differences(asdict(self), asdict(other))


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """One line per value in which two trees differ: ``place: then -> now``."""
    return tuple(_differences("", then, now))


def _differences(place: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in sorted({*then, *now}):
            yield from _differences(f"{place}.{key}", then.get(key), now.get(key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (a, b) in enumerate(zip(then, now, strict=True)):
            yield from _differences(f"{place}[{index}]", a, b)
    elif then != now:
        yield f"{place.lstrip('.')}: {_told(then)} -> {_told(now)}"


def _told(value: Any) -> str:
    """A value in a line: a list of named parts by their names, anything long cut short."""
    if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        return ", ".join(str(part.get("name", "?")) for part in value)
    text = json.dumps(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def versions() -> dict[str, str]:
    """Of Python and of the packages that touch pixels."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def write_identity(
    folder: RunFolder, identity: RunIdentity, model_folder: Path, results: str | None = None
) -> None:
    """Say what this run is, where paths of models begin, and where results lie if elsewhere."""
    tree = asdict(identity) | {"versions": versions(), "model_folder": str(model_folder)}
    if results is not None:
        tree["results"] = results
    write_whole(folder.identity, json.dumps(tree, indent=1))


def read_identity(folder: RunFolder) -> RunIdentity | None:
    """What the run in this folder is; None where there is none yet.

    Raises:
        StoreError: the file is there and can't be understood.
    """
    if not folder.identity.exists():
        return None
    try:
        tree = json.loads(folder.identity.read_text())
        return RunIdentity(**{one.name: tree[one.name] for one in fields(RunIdentity)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{folder.identity}: can't be understood ({error}); restore it, or use a new folder"
        ) from error


def read_model_folder(folder: RunFolder) -> Path:
    """What relative paths of models were relative to; the run itself where it does not say."""
    tree = json.loads(folder.identity.read_text()) if folder.identity.exists() else {}
    return Path(tree.get("model_folder", folder.root))


def check_same(folder: RunFolder, then: RunIdentity, now: RunIdentity) -> None:
    """Refuse to continue a run as another one.

    Raises:
        ResumeRefused: with every difference, and what to do.
    """
    lines = then.differences(now)
    if lines:
        listed = "\n  ".join(lines[:20])
        raise ResumeRefused(
            f"{folder.root}: this run was made with another recipe, weights or device:\n"
            f"  {listed}\n"
            "use a new folder with -o, put the old files back, or restart this one with --force"
        )
