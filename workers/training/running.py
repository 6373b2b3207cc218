"""The recipe that a training is for: what a run says of the same passes.

Images are laid out by it while training, and it is left behind with the weights, so that both see
the same. Knows no file.
"""

from __future__ import annotations

from saccade.pipeline.recipe import PassRecipe, Recipe
from saccade.workers.training.config import TrainRecipe
from saccade.workers.training.learners import Learners, recipe_of


def recipe_to_run(config: TrainRecipe, learners: Learners) -> Recipe:
    """A recipe that runs all tiles of every pass that is trained; its models have no weights."""
    passes: list[PassRecipe] = []
    for one, learner in zip(config.passes, learners, strict=True):
        model = recipe_of(config, one).model_copy(update={"guidance": learner.guided})
        passes.append(
            PassRecipe(
                name=one.name,
                resolution=one.resolution,
                model=model,
                bands=one.bands,
                scaled=one.scaled,
                guidance=learner.guided,
                features=bool(passes) and bool(learner.spec.takes_features),
                context=learner.spec.context,
            )
        )
    return Recipe(passes=tuple(passes), overviews=config.overviews)
