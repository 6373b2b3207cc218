"""What went wrong, by kind, and what to do about it. Pure.

A journal keeps the message of an error, not its class. Every message of this package says what was
expected and found; a kind is known by words of its messages.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of failure."""

    title: str
    """What happened, for people."""
    remedy: str
    """What to do."""
    words: tuple[str, ...] = ()
    """Any of them in a message tells it."""


RETRY = "`saccade retry RUN`"

MISSING = Kind(
    "The file is not there",
    f"Put the file back, or correct its path in the manifest; then {RETRY}.",
    ("no such file", "the file was removed while"),
)
REFUSED = Kind(
    "The file may not be read",
    f"Give the account that runs workers the right to read it, on every machine; then {RETRY}.",
    ("the file can't be read (",),
)
PIXEL_SIZE = Kind(
    "The pixel size is not known",
    "State it in the manifest's column `mpp` (micrometres) or `gsd` (metres), or with `--mpp`; or "
    "let the recipe ask for `downsample` instead of a physical resolution.",
    ("needs the image's pixel size",),
)
RESOLUTION = Kind(
    "The image is coarser than the recipe asks",
    "Ask for a coarser resolution for these images (a dotted column of the manifest changes the "
    "recipe of one image), or correct a pixel size that is wrong.",
    ("an image is never magnified", "the image has levels 0 to"),
)
BAD_TILES = Kind(
    "Too much of the image can't be read",
    f"Copy the file again from its origin, then {RETRY}; or accept the loss with a larger "
    "`max_bad_tiles` in the recipe: what can't be read is marked in the result.",
    ("(max_bad_tiles)",),
)
DAMAGED = Kind(
    "The file is damaged, or is no image",
    f"Compare its size or checksum with the original and copy it again; then {RETRY}. Leave it out "
    "of the manifest if it is no image.",
    ("does not open", "is damaged or is no image", "can't be decoded"),
)
MEMORY = Kind(
    "Too large for the device's memory",
    "Set a smaller window, tile or batch for the pass, or allow more memory (`--memory`, "
    "`--gpu-memory`); `saccade plan RECIPE IMAGE` says what fits.",
    ("does not fit the memory", "are free (", "ran out of memory", "out of memory"),
)
DIED = Kind(
    "The worker died",
    "Most often the system ended it for want of memory: allow less with `--memory`, or run fewer "
    f"workers; `logs/` in the run's folder has its last words. Then {RETRY}.",
    (" died: ", "the process that ran it crashed"),
)
LATE = Kind(
    "No answer in time",
    "Look whether storage or the device hangs where it ran (`logs/` in the run's folder says which "
    f"worker); then {RETRY}.",
    ("did not answer in time",),
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


def kind_of(reason: str) -> Kind:
    """The kind of failure that a message tells."""
    found = (kind for kind in KINDS if any(word in reason for word in kind.words))
    return next(found, OTHER)
