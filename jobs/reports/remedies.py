"""What went wrong, by kind, and what to do about it. Pure.

A journal keeps the name of an error's class beside its message, and the class decides. Journals of
older versions have the message alone: there a kind is known by words of this package's messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saccade.pipeline import errors


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of failure."""

    title: str
    """What happened, for people."""
    remedy: str
    """What to do."""
    words: tuple[str, ...] = ()
    """Any of them in a message tells it, where no class is known."""
    classes: tuple[str, ...] = ()
    """Names of errors that are of this kind, with all that derive from them."""


RETRY = "`saccade retry RUN`"

MISSING = Kind(
    "The file is not there",
    f"Put the file back, or correct its path in the manifest; then {RETRY}.",
    ("no such file", "the file was removed while"),
    ("NoSuchObject",),
)
REFUSED = Kind(
    "The file may not be read",
    f"Give the account that runs workers the right to read it, on every machine; then {RETRY}.",
    ("the file can't be read (",),
    ("AccessDenied",),
)
PIXEL_SIZE = Kind(
    "The pixel size is not known",
    "State it in the manifest's column `mpp` (micrometres) or `gsd` (metres), or with `--mpp`; or "
    "let the recipe ask for `downsample` instead of a physical resolution.",
    ("needs the image's pixel size",),
    ("MissingPixelSize",),
)
RESOLUTION = Kind(
    "The image is coarser than the recipe asks",
    "Ask for a coarser resolution for these images (a dotted column of the manifest changes the "
    "recipe of one image), or correct a pixel size that is wrong.",
    ("an image is never magnified", "the image has levels 0 to"),
    ("ResolutionUnavailable",),
)
BAD_TILES = Kind(
    "Too much of the image can't be read",
    f"Copy the file again from its origin, then {RETRY}; or accept the loss with a larger "
    "`max_bad_tiles` in the recipe: what can't be read is marked in the result.",
    ("(max_bad_tiles)",),
    ("TooManyBadTiles",),
)
DAMAGED = Kind(
    "The file is damaged, or is no image",
    f"Compare its size or checksum with the original and copy it again; then {RETRY}. Leave it out "
    "of the manifest if it is no image.",
    ("does not open", "is damaged or is no image", "can't be decoded"),
    ("BrokenImage", "ReadError"),
)
MEMORY = Kind(
    "Too large for the device's memory",
    "Set a smaller window, tile or batch for the pass, or allow more memory (`--memory`, "
    "`--gpu-memory`); `saccade plan RECIPE IMAGE` says what fits.",
    ("does not fit the memory", "are free (", "ran out of memory", "out of memory"),
    ("UnitTooLarge", "MemoryError", "OutOfMemoryError"),
)
DIED = Kind(
    "The worker died",
    "Most often the system ended it for want of memory: allow less with `--memory`, or run fewer "
    f"workers; `logs/` in the run's folder has its last words. Then {RETRY}.",
    (" died: ", "the process that ran it crashed"),
    ("WorkerLost",),
)
LATE = Kind(
    "No answer in time",
    "Look whether storage or the device hangs where it ran (`logs/` in the run's folder says which "
    f"worker); then {RETRY}.",
    ("did not answer in time",),
    ("UnitTimedOut",),
)
UNFORESEEN = Kind(
    "An error that nobody foresaw",
    "`logs/errors.txt` in the run's folder says where it happened: a model's own code, or a fault "
    f"of saccade worth reporting. Once it is mended, {RETRY}.",
    ("(see logs/errors.txt)",),
)
FORMAT = Kind(
    "No reader for this kind of image",
    "Convert it, for instance with `vips tiffsave --tile --pyramid --bigtiff`, and name the new "
    "file in the manifest; leave it out if it is no image.",
    (" expected, found ", " expected, but ", "too many pixels to decode at once", "no decoder for"),
    ("UnsupportedImage",),
)
OTHER = Kind(
    "Something else",
    f"The message says what was expected and found. Once it is mended, {RETRY}.",
)
KINDS = (
    MISSING,
    REFUSED,
    PIXEL_SIZE,
    RESOLUTION,
    BAD_TILES,
    DAMAGED,
    MEMORY,
    DIED,
    LATE,
    UNFORESEEN,
    FORMAT,
)
"""Looked through in this order: what is said more exactly stands first."""


BY_CLASS: Mapping[str, Kind] = {name: kind for kind in KINDS for name in kind.classes}


def kind_of(reason: str, error: str = "") -> Kind:
    """The kind of a failure.

    Args:
        reason: its message.
        error: the name of its class, or of what happened instead; empty where that is not known.
    """
    return _by_class(error) if error else _by_words(reason)


def _by_class(error: str) -> Kind:
    """A class's own kind, or that of the next class above it; an error of others is unforeseen."""
    known = getattr(errors, error, None)
    lineage = known.__mro__ if isinstance(known, type) else ()
    found = (BY_CLASS[name] for name in (error, *(c.__name__ for c in lineage)) if name in BY_CLASS)
    return next(found, OTHER if lineage else UNFORESEEN)


def _by_words(reason: str) -> Kind:
    found = (kind for kind in KINDS if any(word in reason for word in kind.words))
    return next(found, OTHER)
