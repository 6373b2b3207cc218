"""Units that wait, and whose turn it is. Knows of a worker only which images it has open.

Each lane has lines of its own. A step goes by its urgency, then by its image, to any worker. With
sweeps a worker goes on with an image that it has open, because opening one costs reads that no unit
needs. Where none of its images waits it takes one that nobody sweeps, the oldest that it glanced at
or else the oldest, and where there is no such image either it steals from the oldest of all: nobody
is idle while anything waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush

from saccade.workers.events import Lane
from saccade.workers.ledger import Entry, Image, State

NONE: Mapping[int, Image] = {}


class Line:
    """Units that wait, the urgent first, then the oldest image's, each image's in their order."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, int, Entry]] = []

    def __len__(self) -> int:
        """Units in line, and those that no longer wait but were not at the head since."""
        return len(self._heap)

    def push(self, entry: Entry) -> None:
        """Let a unit wait at its own place."""
        # a unit that no longer waits may still be in the heap when its image's next stage opens:
        # the stage's number keeps keys distinct
        key = (entry.ref.urgency, entry.stage.image.arrival, entry.stage.number, entry.place)
        heappush(self._heap, (*key, entry))

    def head(self) -> Entry | None:
        """The unit whose turn it is."""
        while self._heap and self._heap[0][-1].state is not State.WAITING:
            heappop(self._heap)
        return self._heap[0][-1] if self._heap else None

    def pop(self) -> Entry:
        """Take the unit whose turn it is out of the line; there is one."""
        return heappop(self._heap)[-1]

    def waiting(self) -> list[Entry]:
        """All units that wait here, in no order; reads the whole line."""
        return [entry for *_, entry in self._heap if entry.state is State.WAITING]


class Lines:
    """A line per image, of which a worker has some open."""

    def __init__(self, lane: Lane = Lane.SWEEP) -> None:
        self._lane = lane
        self._lines: dict[int, Line] = {}  # by the image's arrival
        self._unopened: list[tuple[int, Image]] = []  # a heap; some may be open by now
        self._arrivals: list[int] = []  # a heap; some have nothing that waits any more

    def push(self, entry: Entry) -> None:
        """Let a unit wait at its own place."""
        image = entry.stage.image
        if image.arrival not in self._lines:
            self._lines[image.arrival] = Line()
            heappush(self._arrivals, image.arrival)
            if not image.open_at[self._lane]:
                heappush(self._unopened, (image.arrival, image))
        self._lines[image.arrival].push(entry)

    def turn(self, opened: Iterable[int], glanced: Mapping[int, Image] = NONE) -> Entry | None:
        """The unit whose turn it is at a worker; None: none waits.

        Args:
            opened: arrivals of images that it has open.
            glanced: images by arrival that it has glanced at.
        """
        unopened = (a for a, image in glanced.items() if not image.open_at[self._lane])
        heads = map(self._head, (*sorted(opened), *sorted(unopened)))
        return next(filter(None, heads), None) or self._oldest_unopened() or self.head()

    def head(self) -> Entry | None:
        """The first unit of the oldest image; None where nothing waits."""
        while self._arrivals:
            if head := self._head(self._arrivals[0]):
                return head
            self._lines.pop(heappop(self._arrivals), None)
        return None

    def take(self, entry: Entry) -> None:
        """Take a unit whose turn it was out of its line."""
        self._lines[entry.stage.image.arrival].pop()

    def waiting(self) -> list[Entry]:
        """All units that wait here, in no order; reads everything."""
        return [entry for line in self._lines.values() for entry in line.waiting()]

    def _head(self, arrival: int) -> Entry | None:
        line = self._lines.get(arrival)
        return line.head() if line else None

    def _oldest_unopened(self) -> Entry | None:
        while self._unopened:
            arrival, image = self._unopened[0]
            if not image.open_at[self._lane] and (head := self._head(arrival)):
                return head
            heappop(self._unopened)
        return None


class LanesLines:
    """The lines of every lane."""

    def __init__(self, sweeps: Mapping[Lane, Lines] | None = None) -> None:
        self._steps = Line()
        self._sweeps = sweeps or {lane: Lines(lane) for lane in (Lane.GLANCE, Lane.SWEEP)}

    def push(self, entry: Entry) -> None:
        """Let a unit wait at its own place."""
        self._line(entry.ref.lane).push(entry)

    def head(self, lane: Lane) -> Entry | None:
        """The first unit of a lane; None where nothing waits."""
        return self._line(lane).head()

    def turn(self, lane: Lane, images: Mapping[Lane, Mapping[int, Image]]) -> Entry | None:
        """The unit of a lane whose turn it is at a worker that has these images open."""
        if lane is Lane.STEP:
            return self._steps.head()
        glanced = images[Lane.GLANCE] if lane is Lane.SWEEP else NONE
        return self._sweeps[lane].turn(images[lane], glanced)

    def take(self, entry: Entry) -> None:
        """Take a unit whose turn it was out of its line."""
        if entry.ref.lane is Lane.STEP:
            self._steps.pop()
        else:
            self._sweeps[entry.ref.lane].take(entry)

    def waiting(self) -> list[Entry]:
        """All units that wait here, in no order; reads everything."""
        return [entry for lane in Lane for entry in self._line(lane).waiting()]

    def _line(self, lane: Lane) -> Line | Lines:
        return self._steps if lane is Lane.STEP else self._sweeps[lane]
