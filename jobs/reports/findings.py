"""What a reader of a report should know first: failures by kind, and warnings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from saccade.jobs.monitoring.tally import Tally
from saccade.jobs.reports.digest import Digest, ImageDigest
from saccade.jobs.reports.remedies import DAMAGED, Kind, kind_of

MOST_NAMED = 8
"""Images named of each kind of failure."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of failure."""

    what: str
    """How it ended: images 'set aside', 'tried again', or 'read in part'."""
    title: str
    """What happened."""
    remedy: str
    """What to do."""
    images: int
    """How many it happened to."""
    named: tuple[str, ...]
    """The first few of them."""
    example: str
    """A message, of the first of them."""


SET_ASIDE, TRIED_AGAIN, IN_PART = "set aside", "tried again", "read in part"
PART_REMEDY = (
    "Nothing, where the loss is small: these tiles are marked in the result's status and coverage. "
    "Else copy the file again from its origin and start it over with `--force`."
)
AGAIN_REMEDY = "Nothing: another attempt did it, or is still to come."


def troubles(tally: Tally, images: Mapping[str, ImageDigest]) -> tuple[Trouble, ...]:
    """Failures by kind: images set aside first, then what was survived; the commonest first."""
    quarantined = [i for i in tally.images.values() if i.state == "quarantined"]
    aside = [(i.name, i.reason, kind_of(i.reason, i.error)) for i in quarantined]
    gone = {i.name for i in quarantined}
    again = [
        (name, reason, kind_of(reason, error))
        for name, image in images.items()
        if name not in gone and name in tally.images
        for reason, error in [*zip(image.reasons, image.errors, strict=True)][:1]
    ]
    part = [
        (i.name, i.errors[0], DAMAGED)
        for i in tally.images.values()
        if i.errors and i.name not in gone and i.tiles_failed
    ]
    return (
        *_grouped(SET_ASIDE, aside),
        *_grouped(TRIED_AGAIN, again, AGAIN_REMEDY),
        *_grouped(IN_PART, part, PART_REMEDY),
    )


def _grouped(
    what: str, told: Iterable[tuple[str, str, Kind]], remedy: str = ""
) -> Iterator[Trouble]:
    kinds: dict[Kind, list[tuple[str, str]]] = {}
    for name, reason, kind in told:
        kinds.setdefault(kind, []).append((name, reason))
    for kind, those in sorted(kinds.items(), key=lambda item: -len(item[1])):
        names = tuple(name for name, _ in those[:MOST_NAMED])
        yield Trouble(what, kind.title, remedy or kind.remedy, len(those), names, those[0][1])


def warnings(digest: Digest) -> Iterator[str]:
    """What changes how far the rest can be trusted."""
    tally = digest.tally
    left = tally.count("running") + tally.count("waiting")
    if left and digest.ended:
        yield "The run stopped before its end; the same command goes on with what is left."
    elif left:
        yield (
            "The run was going on when this was written, or its driver was lost: numbers and "
            "pictures are as far as it had come."
        )
    if digest.timeless:
        yield (
            "Times unknown: receipts of this run do not say when they came. Throughput is drawn "
            "over busy seconds, all workers' added up."
        )
    failed = sum(image.tiles_failed for image in tally.images.values())
    degraded = sum(t.get("degraded", 0) for i in tally.images.values() for t in i.tiles.values())
    if failed or degraded:
        yield _of_tiles(failed, degraded)
    if digest.splits:
        yield (
            f"A device ran out of memory: batches were halved {digest.splits:,} times. The "
            "answers hold; a smaller batch or window in the recipe would be faster."
        )
    if digest.drivers > 1:
        yield f"Drivers were started {digest.drivers:,} times; what was done was done once."


def _of_tiles(failed: int, degraded: int) -> str:
    told = {
        "could not be read": failed,
        "answered with incomplete surroundings": degraded,
    }
    counts = (f"{count:,} {what}" for what, count in told.items() if count)
    return f"Tiles of which something is missing: {'; '.join(counts)}."
