"""Whether a resumed run is the same run, and which of its images begin anew. Runs nothing."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from saccade.jobs.identity import RunIdentity, check_same
from saccade.jobs.journals.claiming import living
from saccade.jobs.journals.journal import Journal, Record, read_records
from saccade.jobs.manifests.catalogue import Catalogue
from saccade.jobs.manifests.names import Names
from saccade.jobs.manifests.places import resolved
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import ResumeRefused
from saccade.pipeline.sources.base import Identity
from saccade.pipeline.sources.identities import moved_on
from saccade.pipeline.store import remove_result
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call asks of a run, beside what the run was asked before."""

    images: Catalogue
    """Those that it asks for, of its part of the run."""
    known: Catalogue
    """Those of earlier calls."""
    options: RunOptions
    """Of the call."""


def images_to_restart(
    folder: RunFolder,
    history: History,
    then: RunIdentity | None,
    now: RunIdentity,
    asked: Asked,
) -> Iterable[str]:
    """Images to begin anew: all known ones when the recipe changed, else those that changed.

    Those that were being begun anew when their driver died are among them, and those that were set
    aside where ``retry`` is given or something else is asked of them.

    Raises:
        ResumeRefused: something changed that was made use of, and ``force`` was not given.
    """
    options = asked.options
    if then is not None and then.differences(now):
        _check_new_identity(folder, history, then, now, options)
        return asked.known.listed()
    again = {name for name in history.half_restarted if options.shard.holds(name)}
    moved = changed_rows(asked)
    set_aside = {name for name in history.set_aside if name in asked.images.names}
    again |= set_aside if options.retry else set_aside & moved.keys()
    changed = changed_images(asked, history, moved, again)
    if changed and not options.force:
        listed = "\n  ".join(f"{name}: {why}" for name, why in list(changed.items())[:20])
        raise ResumeRefused(
            f"{folder.root}: these images are not those that the run was made from:\n  {listed}\n"
            "put the old files back, or start these images over with --force"
        )
    return changed.keys() | again


def _check_new_identity(
    folder: RunFolder,
    history: History,
    then: RunIdentity,
    now: RunIdentity,
    options: RunOptions,
) -> None:
    """Refuse to go on as another run, unless nothing is lost or the whole run is to begin anew."""
    if options.shard.whole:
        if history.receipts and not options.force:
            check_same(folder, then, now)
    elif _begun_by_anyone(folder):
        if not options.force:
            check_same(folder, then, now)
        raise ResumeRefused(
            f"{folder.root}: part {options.shard} of a run can't begin all of it anew; "
            "use a new folder with -o, or run once with --force and without --shard"
        )


def _begun_by_anyone(folder: RunFolder) -> bool:
    """Whether any part of a run has made something, or is about to."""
    records = read_records(folder.journal)
    return any(r["kind"] == "receipt" for r in records) or any(living(folder.journal))


UNKNOWN = -1
"""A size or time of an image that was not prepared."""
HASH_NBYTES = 16
"""Of the hash in an image's identity."""
NOBODY = Identity("", UNKNOWN, UNKNOWN, "00" * HASH_NBYTES)
"""Of an image that was not prepared."""


def _hash_of(place: int) -> slice:
    return slice(place * HASH_NBYTES, (place + 1) * HASH_NBYTES)


class History:
    """What the journal says of images, as far as it decides which of them begin anew.

    Args:
        names: of the images asked for; of each, 32 bytes say what it was when it was prepared.
    """

    def __init__(self, names: Names) -> None:
        self.half_restarted: set[str] = set()
        """Images of which nothing was done since they were to begin anew."""
        self.set_aside: set[str] = set()
        """Images that were quarantined."""
        self.receipts = 0
        """Units done, all images; where there is none, nothing can be lost."""
        self._names = names
        self._nbytes = array("q", [UNKNOWN]) * len(names)
        self._modified_ns = array("q", [UNKNOWN]) * len(names)
        self._hashes = bytearray(HASH_NBYTES * len(names))

    def fold(self, record: Record) -> None:
        """Take the next record in."""
        kind, image = record["kind"], record.get("image", "")
        if kind == "receipt":
            self.receipts += 1
            self.half_restarted.discard(image)
        elif kind == "quarantine":
            self.set_aside.add(image)
        elif kind == "restart":
            self.half_restarted.add(image)
            self.set_aside.discard(image)
            self._remember(image, NOBODY)
        if "identity" in record:
            self._remember(image, Identity(**record["identity"]))

    def _remember(self, image: str, identity: Identity) -> None:
        if (place := self._names.place(image)) is not None:
            self._nbytes[place] = identity.nbytes
            self._modified_ns[place] = identity.modified_ns
            self._hashes[_hash_of(place)] = bytes.fromhex(identity.quick_hash)

    def prepared(self, place: int) -> Identity | None:
        """What the image at a place was, but for its path; None where it was not prepared."""
        nbytes, modified_ns = self._nbytes[place], self._modified_ns[place]
        if (nbytes, modified_ns) == (UNKNOWN, UNKNOWN):
            return None
        return Identity("", nbytes, modified_ns, self._hashes[_hash_of(place)].hex())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def changed_rows(asked: Asked) -> dict[str, str]:
    """Of which images something else is asked than before, and what."""
    changed = {}
    for place, before in enumerate(asked.known.names.places(asked.images.names)):
        if before < 0 or asked.images.line(place) == asked.known.line(before):
            continue
        entry = asked.images.entry(place)
        if why := _row_changed(asked.known.entry(before), entry):
            changed[entry.name] = why
    return changed


def changed_images(
    asked: Asked, history: History, moved: Mapping[str, str], again: Collection[str]
) -> dict[str, str]:
    """What is different about images that were prepared before, by name.

    Args:
        asked: images now and then.
        history: what the journal says of them.
        moved: those of which something else is asked.
        again: those that begin anew as it is.
    """
    changes = {}
    for place, before in enumerate(asked.known.names.places(asked.images.names)):
        then = history.prepared(place)
        if before < 0 or then is None:
            continue
        entry = asked.images.entry(place)
        if entry.name in again:
            continue
        if why := moved.get(entry.name) or moved_on(then, entry.uri):
            changes[entry.name] = why
    return changes


def _row_changed(then: ImageEntry, now: ImageEntry) -> str:
    """What else is asked of an image than before; empty where it is the same."""
    for what in ("mpp", "gsd", "overrides"):
        before, after = getattr(then, what), getattr(now, what)
        if before != after and _in_full(before) != _in_full(after):
            return f"{what} was {before or 'not given'}, is {after or 'not given'}"
    return ""


def _in_full(value: object) -> object:
    """Overrides in which paths are told as lists are read now: one file has one name."""
    if not isinstance(value, Mapping):
        return value
    paths = {k: v for k, v in value.items() if isinstance(v, str) and v.startswith("/")}
    return {**value, **{key: resolved(path, "/") for key, path in paths.items()}}


def start_over(folder: RunFolder, journal: Journal, names: Iterable[str]) -> None:
    """Forget what was made of some images; written down first, so that a crash forgets nothing."""
    for name in names:
        journal.append({"kind": "restart", "image": name})
        remove_result(folder.result(name))
        remove_result(folder.image_plan(name).parent)
