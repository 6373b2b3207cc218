"""What a run's own folder says of how it is to be run again. Runs nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from saccade.jobs.identity import read_identity, read_model_folder
from saccade.jobs.manifests.catalogue import Catalogue
from saccade.jobs.quarantine import failed_images
from saccade.pipeline.errors import UsageError
from saccade.pipeline.recipe import Recipe
from saccade.workers.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Retry:
    """A run as it was begun, and those of its images that are to begin again."""

    recipe: Recipe
    """Of the run."""
    model_folder: Path
    """What relative paths of models are relative to."""
    device: str
    """Kind of device that it was begun on."""
    images: Catalogue
    """Those to begin again."""


def what_to_retry(root: Path, names: Collection[str]) -> Retry:
    """Images of a run that were set aside, and what it takes to begin them again.

    Args:
        root: the run's folder.
        names: of the images; none means all that are set aside.

    Raises:
        UsageError: the folder is not a run, or an image is not set aside.
    """
    folder = RunFolder(root)
    failed = [image.name for image in failed_images(root)]
    identity = read_identity(folder)
    if identity is None:
        raise UsageError(f"{root}: not a run folder (no {folder.identity.name} in it)")
    if others := sorted({*names}.difference(failed)):
        raise UsageError(
            f"{root}: not set aside: {', '.join(others[:20])}; set aside are "
            f"{', '.join(failed[:20]) or 'none'}"
        )
    return Retry(
        recipe=Recipe.model_validate(identity.recipe),
        model_folder=read_model_folder(folder),
        device=identity.device,
        images=Catalogue.opened(folder.images).named(names or failed),
    )
