"""What a report says of a run, as frozen values. Pure: from a digest, without page or pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from saccade.jobs.monitoring.tally import ImageTally
from saccade.jobs.reports.digest import Digest, ImageDigest, unix_seconds
from saccade.jobs.reports.findings import Trouble, troubles, warnings
from saccade.jobs.reports.remedies import kind_of
from saccade.jobs.reports.timeline import Stretch

STATES = ("complete", "running", "waiting", "quarantined")
MOST_ERRORS = 5
"""Parts of an image that could not be read: the first so many are listed."""


@dataclass(frozen=True, slots=True)
class PassLine:
    """One pass, of one image or of all."""

    name: str
    """In the recipe."""
    answered: int
    """Tiles."""
    selected: int | None
    """Tiles that it is to visit; None while nobody has chosen them."""
    of: int | None
    """Tiles that there are; None for a pass that visits all it is given."""
    degraded: int
    """Tiles answered with incomplete surroundings."""
    failed: int
    """Tiles that could not be read."""
    seconds: Mapping[str, float]
    """Busy, by lane."""
    pixels: int
    """Through the model, halos included."""


@dataclass(frozen=True, slots=True)
class Card:
    """One image."""

    name: str
    """In the run."""
    state: str
    """One of ``STATES``."""
    stage: str
    """What is being done, or was last."""
    share_done: float
    """Of its planned units, 0 to 1."""
    passes: tuple[PassLine, ...]
    """From coarse to fine, those that began."""
    refined: float | None
    """Share of tiles that the finest pass chosen so far visits; None before any choice."""
    seconds: float
    """Busy, all lanes."""
    attempts_failed: int
    """Tries of its units that failed."""
    reason: str = ""
    """Why it was set aside."""
    remedy: str = ""
    """What to do about it."""
    notes: tuple[str, ...] = ()
    """Parts that could not be read and why attempts failed, the first few."""

    @property
    def answered(self) -> int:
        """Tiles, all passes."""
        return sum(line.answered for line in self.passes)

    @property
    def tiles_failed(self) -> int:
        """Tiles that could not be read, all passes."""
        return sum(line.failed for line in self.passes)

    @property
    def tiles_degraded(self) -> int:
        """Tiles answered with incomplete surroundings, all passes."""
        return sum(line.degraded for line in self.passes)

    @property
    def care(self) -> int:
        """How much it asks to be looked at: 0 most, 4 least."""
        if self.state == "quarantined":
            return 0
        if self.tiles_failed or self.tiles_degraded or self.attempts_failed:
            return 1
        return {"running": 2, "complete": 3}.get(self.state, 4)


@dataclass(frozen=True, slots=True)
class Throughput:
    """Pixels through models over time."""

    passes: tuple[str, ...]
    """From coarse to fine."""
    stretches: tuple[Stretch, ...]
    """In order; pauses between them."""
    width_seconds: float
    """Of a bin."""
    by_clock: bool
    """Whether time is that of the day (Unix seconds), or busy seconds of all workers."""


@dataclass(frozen=True, slots=True)
class Report:
    """A run, as far as it has come."""

    name: str
    """Of its folder."""
    counts: Mapping[str, int]
    """Images by state."""
    ended: bool
    """Whether no driver is at work, by what they wrote."""
    began_seconds: float | None
    """Unix time of the first driver's start."""
    last_seconds: float | None
    """Unix time of the newest record."""
    written_seconds: float
    """Unix time of this report."""
    tiles: int
    """Answered."""
    refined: float | None
    """Share of tiles that the finest pass chosen so far visits."""
    pixels: int
    """Through models."""
    seconds: float
    """Busy, all workers and lanes."""
    nbytes: int
    """Written by sweeps."""
    passes: tuple[PassLine, ...]
    """All images together."""
    throughput: Throughput
    """Over time."""
    troubles: tuple[Trouble, ...] = ()
    """Failures by kind."""
    warnings: tuple[str, ...] = ()
    """What a reader should know before trusting the rest."""
    cards: tuple[Card, ...] = field(default=(), repr=False)
    """In the order of the run."""

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: every image is complete or set aside."""
        return not self.counts["running"] and not self.counts["waiting"]


def make_report(
    name: str, digest: Digest, written_seconds: float, passes: Sequence[str] = ()
) -> Report:
    """Everything a report says.

    Args:
        name: of the run.
        digest: of its journal.
        written_seconds: now, in Unix seconds.
        passes: of the recipe, from coarse to fine; those that nothing is said of are listed, too.
    """
    tally = digest.tally
    cards = tuple(_card(image, digest) for image in tally.images.values())
    lines = tuple(_added(cards, passes))
    return Report(
        name=name,
        counts={state: tally.count(state) for state in STATES},
        ended=digest.ended,
        began_seconds=unix_seconds(digest.began),
        last_seconds=digest.last_seconds,
        written_seconds=written_seconds,
        tiles=tally.tiles_done,
        refined=tally.share_refined,
        pixels=tally.pixels,
        seconds=sum(card.seconds for card in cards),
        nbytes=digest.nbytes,
        passes=lines,
        throughput=_throughput(digest, tuple(line.name for line in lines)),
        troubles=troubles(tally, digest.images),
        warnings=tuple(warnings(digest)),
        cards=cards,
    )


def _card(image: ImageTally, digest: Digest) -> Card:
    more = digest.images.get(image.name, ImageDigest())
    chosen = image.finest_choice
    passes = tuple(_line(image, name) for name in image.tiles)
    busy = sum(sum(line.seconds.values()) for line in passes)
    return Card(
        name=image.name,
        state=image.state,
        stage=image.stage,
        share_done=image.share_done,
        passes=passes,
        refined=chosen["selected"] / chosen["of"] if chosen and chosen["of"] else None,
        seconds=busy + more.step_seconds,
        attempts_failed=more.failures,
        reason=image.reason,
        remedy=_remedy(image),
        notes=tuple(_notes(image, more)),
    )


def _remedy(image: ImageTally) -> str:
    return kind_of(image.reason, image.error).remedy if image.state == "quarantined" else ""


def _notes(image: ImageTally, more: ImageDigest) -> Iterator[str]:
    """How it is read; why attempts failed, unless that is the reason; what could not be read."""
    yield from more.notes
    yield from (f"failed attempt: {why}" for why in more.reasons if why not in image.reason)
    yield from image.errors[:MOST_ERRORS]
    if len(image.errors) > MOST_ERRORS:
        yield "and more"


def _line(image: ImageTally, name: str) -> PassLine:
    tiles = image.tiles[name]
    return PassLine(
        name=name,
        answered=tiles.get("done", 0) + tiles.get("degraded", 0),
        selected=tiles.get("selected"),
        of=tiles.get("of"),
        degraded=tiles.get("degraded", 0),
        failed=tiles.get("failed", 0),
        seconds=image.seconds.get(name, {}),
        pixels=image.pixels.get(name, 0),
    )


def _added(cards: Sequence[Card], passes: Sequence[str]) -> Iterator[PassLine]:
    """The passes of all images added up: those of the recipe, then others as they first came."""
    lines: dict[str, list[PassLine]] = {name: [] for name in passes}
    for card in cards:
        for line in card.passes:
            lines.setdefault(line.name, []).append(line)
    for name, same in lines.items():
        yield PassLine(
            name=name,
            answered=sum(line.answered for line in same),
            selected=sum(line.selected or 0 for line in same),
            of=sum(line.of or line.selected or 0 for line in same),
            degraded=sum(line.degraded for line in same),
            failed=sum(line.failed for line in same),
            seconds=_lanes(same),
            pixels=sum(line.pixels for line in same),
        )


def _lanes(lines: Sequence[PassLine]) -> dict[str, float]:
    total: dict[str, float] = {}
    for line in lines:
        for lane, seconds in line.seconds.items():
            total[lane] = total.get(lane, 0.0) + seconds
    return total


def _throughput(digest: Digest, passes: tuple[str, ...]) -> Throughput:
    """By the clock where every receipt says when it came, else over busy seconds."""
    by_clock = not digest.timeless
    line = digest.by_clock if by_clock else digest.by_work
    return Throughput(passes, line.stretches(), line.width_seconds, by_clock)
