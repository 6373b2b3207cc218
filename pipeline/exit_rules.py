"""What a recipe may say about exits: the rules as frozen values.

How a rule decides is ``exits``' job; this module only says which there are and what each one's
numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from saccade.pipeline.selectors import SelectorNode, Statistic

Scope = Literal["tile", "image"]


class LeafExit(SelectorNode):
    """A rule that asks every tile of the pass one question."""

    scope: Scope = "tile"
    """'tile': a tile that says yes leaves; 'image': all leave together, or none does."""
    share: float = Field(1.0, gt=0, le=1)
    """Of scope 'image': it leaves when at least this share of its answered tiles says yes."""

    @model_validator(mode="after")
    def _share_of_an_image(self) -> LeafExit:
        if self.scope == "tile" and self.share != 1:
            raise ValueError(
                f"share goes with 'scope: image', a tile leaves by itself; found {self.share:g}"
            )
        return self


class ConfidenceExit(LeafExit):
    """The pass is confident enough of its answer."""

    by: Literal["confidence"] = "confidence"
    """Names the rule."""
    at_least: float = Field(gt=0, le=1)
    """Confidence that is enough: the model's own where it states one, else the margin between its
    best and its second best score."""
    statistic: Statistic = "top"
    """How *doubt*, 1 - confidence, is summed up inside a tile: 'top', the mean of the most doubtful
    2 % of the pixels; 'max', the most doubtful one; or 'mean'."""


class ConvergenceExit(LeafExit):
    """The pass has hardly changed the answer of the pass before it."""

    by: Literal["convergence"] = "convergence"
    """Names the rule."""
    within: float = Field(gt=0, le=1)
    """Mean absolute difference of the scores of all classes that both passes have, at most."""


class AnyExit(SelectorNode):
    """What any of several rules lets go."""

    by: Literal["any"] = "any"
    """Names the rule."""
    of: tuple[ExitRule, ...] = Field(min_length=1)
    """The rules."""


class AllExits(SelectorNode):
    """What all of several rules let go."""

    by: Literal["all"] = "all"
    """Names the rule."""
    of: tuple[ExitRule, ...] = Field(min_length=1)
    """The rules."""


ExitRule = Annotated[
    ConfidenceExit | ConvergenceExit | AnyExit | AllExits, Field(discriminator="by")
]

AnyExit.model_rebuild()
AllExits.model_rebuild()


def leaves(rule: ExitRule) -> Iterator[ConfidenceExit | ConvergenceExit]:
    """The rules of a tree that ask a question, in the order in which they are written."""
    if isinstance(rule, AnyExit | AllExits):
        for part in rule.of:
            yield from leaves(part)
    else:
        yield rule


def compares_passes(rule: ExitRule | None) -> bool:
    """Whether a rule needs the answer of the pass before, too."""
    return rule is not None and any(isinstance(leaf, ConvergenceExit) for leaf in leaves(rule))


def check_exits(rules: Sequence[ExitRule | None]) -> None:
    """Refuse an exit that can't decide anything.

    Args:
        rules: of every pass, in order.

    Raises:
        ValueError: the last pass has one, or the first one that compares it with an earlier pass.
    """
    if rules[-1] is not None:
        raise ValueError(
            "an exit spares later passes their work, and none follows the last pass; state the "
            "exit on an earlier pass"
        )
    if compares_passes(rules[0]):
        raise ValueError(
            "the first pass has no earlier answer to have converged to; state the exit by "
            "convergence on a later pass, or leave by confidence"
        )
