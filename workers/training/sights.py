"""What passes look at, from their configuration and their models; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.pipeline.errors import RecipeError, TruthError
from saccade.pipeline.truth import TruthRecipe
from saccade.workers.training.config import TrainPass, TrainRecipe
from saccade.workers.training.learners import Learners
from saccade.workers.training.reading import PassSight


def sights_of(config: TrainRecipe, learners: Learners) -> tuple[PassSight, ...]:
    """What reading needs to know of every pass."""
    return tuple(
        PassSight(
            one.name,
            one.crop,
            learner.spec.multiple,
            learner.spec.stride,
            learner.spec.classes,
            learner.spec.context,
            px_nbytes(one),
        )
        for one, learner in zip(config.passes, learners, strict=True)
    )


def px_nbytes(one: TrainPass) -> int:
    """Host memory of a pixel as read, about: three bytes, or two per band that is named.

    Scaled samples are floats of four.
    """
    if one.bands is None:
        return 3 * (4 if one.scaled else 1)
    return len(one.bands) * (4 if one.scaled else 2)


def nbytes_of(sight: PassSight) -> int:
    """Host memory of a crop, about."""
    views = 1 + len(sight.context)
    return sight.px_nbytes * views * sight.crop_px**2 + (len(sight.classes) + 1) * sight.crop_scores


def check_shared(groups: int, images: int, size: int) -> None:
    """Refuse groups or images that so many processes can't share evenly.

    Raises:
        RecipeError: they can't.
    """
    if groups % size or images < size:
        raise RecipeError(
            f"{size} processes share the groups of a step and the images of a round: "
            f"sampling.groups must be a multiple of {size}, and as many images or more are needed; "
            f"found {groups} groups, {images} images"
        )


def check_classes(truth: TruthRecipe, sights: Sequence[PassSight]) -> None:
    """Refuse classes that there is no truth for.

    Raises:
        TruthError: a model answers for more than the truth knows.
    """
    for sight in sights:
        unknown = [name for name in sight.classes if name not in truth.classes]
        if unknown:
            raise TruthError(
                f"pass {sight.name!r}: truth for {', '.join(sight.classes)} expected; the truth "
                f"has {', '.join(truth.classes)}: name the model's classes as the truth does"
            )
