"""Whether a resumed run is the same run, and which of its images begin anew. Runs nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from saccade.jobs.identity import RunIdentity, check_same
from saccade.jobs.journal import Journal, Record
from saccade.jobs.manifest import entry_from_json
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import ResumeRefused
from saccade.pipeline.sources.base import Identity
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry


def images_to_restart(
    folder: RunFolder,
    history: History,
    then: RunIdentity | None,
    now: RunIdentity,
    entries: Sequence[ImageEntry],
    options: RunOptions,
) -> set[str]:
    """Images to begin anew: all known ones when the recipe changed, else those that changed.

    Those that were being begun anew when their driver died are among them, and those that were set
    aside where ``retry`` is given or something else is asked of them.

    Raises:
        ResumeRefused: something changed that was made use of, and ``force`` was not given.
    """
    if then is None:
        return history.half_restarted
    known = known_images(folder)
    if then.differences(now):
        if history.receipts and not options.force:
            check_same(folder, then, now)
        return set(known)
    asked_anew = {e.name for e in entries if e.name in known and _row_changed(known[e.name], e)}
    again = history.half_restarted | (history.set_aside & asked_anew)
    if options.retry:
        again |= history.set_aside
    changed = changed_images(known, history, [e for e in entries if e.name not in again])
    if changed and not options.force:
        listed = "\n  ".join(f"{name}: {why}" for name, why in list(changed.items())[:20])
        raise ResumeRefused(
            f"{folder.root}: these images are not those that the run was made from:\n  {listed}\n"
            "put the old files back, or start these images over with --force"
        )
    return set(changed) | again


@dataclass
class History:
    """What the journal says of images, as far as it decides which of them begin anew."""

    identities: dict[str, Identity] = field(default_factory=dict)
    """What each image was when it was prepared."""
    half_restarted: set[str] = field(default_factory=set)
    """Images of which nothing was done since they were to begin anew."""
    set_aside: set[str] = field(default_factory=set)
    """Images that were quarantined."""
    receipts: int = 0
    """Units done, all images; where there is none, nothing can be lost."""

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
            self.identities.pop(image, None)
        if "identity" in record:
            self.identities[image] = Identity(**record["identity"])


def known_images(folder: RunFolder) -> dict[str, ImageEntry]:
    """The images of earlier calls, by name."""
    if not folder.images.exists():
        return {}
    entries = map(entry_from_json, folder.images.read_text().splitlines())
    return {entry.name: entry for entry in entries}


def changed_images(
    known: Mapping[str, ImageEntry], history: History, entries: Iterable[ImageEntry]
) -> dict[str, str]:
    """What is different about images that were prepared before, by name."""
    changes = {}
    for entry in entries:
        before, identity = known.get(entry.name), history.identities.get(entry.name)
        if before is None or identity is None:
            continue
        if why := _row_changed(before, entry) or _moved_on(identity, Path(entry.uri)):
            changes[entry.name] = why
    return changes


def _row_changed(then: ImageEntry, now: ImageEntry) -> str:
    """What else is asked of an image than before; empty where it is the same."""
    for what in ("mpp", "gsd", "overrides"):
        before, after = getattr(then, what), getattr(now, what)
        if before != after:
            return f"{what} was {before or 'not given'}, is {after or 'not given'}"
    return ""


def _moved_on(then: Identity, path: Path) -> str:
    """How a file differs from what it was, by size and time; empty where it does not."""
    if path.is_dir():
        return ""
    try:
        stat = path.stat()
    except OSError as error:
        return f"{path} can't be read ({error.strerror})"
    if stat.st_size != then.nbytes:
        return f"{path} was {then.nbytes} bytes, is {stat.st_size}"
    if stat.st_mtime_ns != then.modified_ns:
        return f"{path} was modified since"
    return ""


def start_over(folder: RunFolder, journal: Journal, names: Iterable[str]) -> None:
    """Forget what was made of some images; written down first, so that a crash forgets nothing."""
    for name in sorted(names):
        journal.append({"kind": "restart", "image": name})
        for path in (folder.result(name), folder.image_plan(name).parent):
            if path.exists():
                shutil.rmtree(path)
