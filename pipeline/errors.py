"""Every error a person can meet, in one tree with one base.

    SaccadeError
    ├── UsageError             what was asked for can't be done as asked (exit code 2)
    │   ├── RecipeError            the recipe is wrong: unknown key, wrong value
    │   ├── TruthError             the truth is wrong: not over its image, no such class or part
    │   ├── ManifestError          the list of images is wrong: missing file, duplicate name
    │   └── ResumeRefused          the run folder belongs to another recipe, weights or image
    ├── SourceError            one image is at fault; the others go on
    │   ├── NoSuchObject           nothing of that name, on a disk or in an object store
    │   ├── AccessDenied           no permission to read it
    │   ├── UnsupportedImage       no reader for this kind of file
    │   ├── BrokenImage            a known format, but the file is damaged and does not open
    │   ├── MissingPixelSize       the recipe asks for mpp or gsd and the image states no pixel size
    │   ├── ResolutionUnavailable  finer than the image, or a level it does not have
    │   ├── ReadError              one region can't be decoded
    │   └── TooManyBadTiles        more unreadable tiles than the recipe allows
    ├── ModelError             one model is at fault
    │   ├── ModelNotFound          file, module, factory or weights are missing
    │   ├── ModelContract          it loads, but breaks its declaration (shape, range, halo)
    │   └── UnitTooLarge           a window does not fit the memory that is allowed
    │       └── DeviceFull             out of memory at the least that there is to try
    ├── PlanError              a plan that would break a contract was refused
    ├── StoreError             the result can't be written or read
    │   └── StorageFull            no space left on the device that holds the run
    └── RunError               the run as a whole
        ├── Fenced                 another driver took the run over
        ├── Interrupted            stopped on request; the same command resumes it
        ├── StorageGone            the place of images or results is not there (any more)
        └── WorkerLost             a worker process ended while it held a unit

Each message says what was expected, what was found, and what to do.
"""

from __future__ import annotations


class SaccadeError(Exception):
    """Base of every error raised on purpose by this package."""


class UsageError(SaccadeError):
    """What was asked for can't be done as asked."""


class RecipeError(UsageError):
    """The recipe is wrong."""


class TruthError(UsageError):
    """The truth does not fit what it is compared with."""


class ManifestError(UsageError):
    """The list of images is wrong."""


class ResumeRefused(UsageError):
    """The run folder belongs to another recipe, other weights or another image."""


class SourceError(SaccadeError):
    """One image is at fault."""


class NoSuchObject(SourceError):
    """Nothing of that name lies on a disk or in an object store."""


class AccessDenied(SourceError):
    """A disk or an object store gives no permission."""


class UnsupportedImage(SourceError):
    """No reader for this kind of file."""


class BrokenImage(SourceError):
    """A known format, but the file is damaged and does not open."""


class MissingPixelSize(SourceError):
    """A physical resolution is asked of an image that states no pixel size."""


class ResolutionUnavailable(SourceError):
    """The image does not have the resolution that a pass asks for."""


class ReadError(SourceError):
    """One region of an image can't be decoded."""


class TooManyBadTiles(SourceError):
    """More of the image is unreadable than the recipe allows."""


class ModelError(SaccadeError):
    """One model is at fault."""


class ModelNotFound(ModelError):
    """A model's file, module, factory or weights are missing."""


class ModelContract(ModelError):
    """A model breaks its declaration."""


class UnitTooLarge(ModelError):
    """A single window does not fit the memory that is allowed."""


class DeviceFull(UnitTooLarge):
    """The least that there is to try ran out of memory; whoever else holds it may give it back."""


class PlanError(SaccadeError):
    """A plan that would break a contract was refused."""


class StoreError(SaccadeError):
    """The result can't be written or read."""


class StorageFull(StoreError):
    """No space is left where the run is written."""


class RunError(SaccadeError):
    """The run as a whole can't go on."""


class Fenced(RunError):
    """Another driver took the run over."""


class Interrupted(RunError):
    """Stopped on request; the same command resumes the run."""


class StorageGone(RunError):
    """The place where images or results lie is not there, or not any more."""


class WorkerLost(RunError):
    """A worker process ended while it held a unit."""
