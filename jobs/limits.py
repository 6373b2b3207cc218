"""How many images may be set aside before a run is stopped. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.pipeline.errors import UsageError

ENOUGH = 20
"""Images that ended, from which on a share of them says something."""


@dataclass(frozen=True, slots=True)
class QuarantineLimit:
    """A number of images, or a share of those that ended."""

    images: int = 0
    """So many may be set aside, where ``share`` is None."""
    share: float | None = None
    """Or this share, 0 to 1, of the images that are complete or set aside."""

    @classmethod
    def parse(cls, text: str) -> QuarantineLimit:
        """'50' or '10%'.

        Raises:
            UsageError: it is something else.
        """
        number, percent = text.removesuffix("%").strip(), text.endswith("%")
        try:
            if percent and 0 <= float(number) <= 100:
                return cls(share=float(number) / 100)
            if not percent and int(number) >= 0:
                return cls(images=int(number))
        except ValueError:
            pass
        raise UsageError(
            f"images that may be set aside: a number or a share, '10%'; found {text!r}"
        )

    def __str__(self) -> str:
        return str(self.images) if self.share is None else f"{100 * self.share:g}%"

    def exceeded(self, set_aside: int, ended: int, total: int) -> bool:
        """Whether more images were set aside than allowed.

        A share is looked at once ``ENOUGH`` images ended, or all of a smaller archive.

        Args:
            set_aside: images.
            ended: images that are complete or set aside.
            total: images asked for.
        """
        if self.share is None:
            return set_aside > self.images
        return ended >= min(ENOUGH, total) and set_aside > self.share * ended
