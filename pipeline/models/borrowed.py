"""Models from other libraries by source: ``timm:NAME``, ``hf:NAME``, ``smp:NAME``.

A library builds the module and knows what it was trained on; an adapter per library turns that into
a declaration, so that a recipe stays short. A package is imported only when a recipe names it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models.borrowing import Borrowed, Wanted
from saccade.pipeline.models.choice import ModelChoice
from saccade.pipeline.models.from_huggingface import from_huggingface
from saccade.pipeline.models.from_smp import from_smp
from saccade.pipeline.models.from_timm import from_timm
from saccade.pipeline.models.hf_checkpoint import checkpoint_files, checkpoint_folder
from saccade.pipeline.models.seeding import seeded
from saccade.pipeline.models.weights import load_weights


@dataclass(frozen=True, slots=True)
class Library:
    """Where models come from."""

    distribution: str
    """What pip calls the package."""
    extra: str
    """Of this package, to install it with."""
    adapt: Callable[[Wanted], Borrowed]
    """Builds one of its models."""


LIBRARIES = {
    "timm:": Library("timm", "timm", from_timm),
    "hf:": Library("transformers", "huggingface", from_huggingface),
    "smp:": Library("segmentation-models-pytorch", "smp", from_smp),
}
"""By how a source begins."""
PREFIXES = tuple(LIBRARIES)


def borrow(choice: ModelChoice, base_folder: Path) -> Borrowed:
    """The model of a source that begins with one of ``PREFIXES``, on the CPU, with its weights.

    Raises:
        ModelNotFound: the library, the model or its weights are missing.
        ModelContract: an option is wrong, or the weights are another model's.
    """
    wanted = _wanted(choice, base_folder)
    with seeded(wanted.option("seed", int, 0)):
        borrowed = _library(choice).adapt(wanted)
    if wanted.weights is not None:
        load_weights(borrowed.takes_weights, wanted.weights)
    borrowed.module.eval().requires_grad_(False)
    return borrowed


def needs_halo(choice: ModelChoice, borrowed: Borrowed) -> None:
    """Refuse a model that sees its whole window where the recipe states no halo.

    Raises:
        ModelContract: it is one.
    """
    if borrowed.declaration.get("local", True) or choice.halo is not None:
        return
    raise ModelContract(
        f"{choice.source}: its layers look at their whole window (attention), so no halo is exact; "
        "state 'halo' of the model, in pixels: choose one whose seams are small enough"
    )


def borrowed_facts(choice: ModelChoice, base_folder: Path) -> Iterator[bytes]:
    """What a fingerprint holds of a borrowed model beside the recipe's words and file of weights.

    The library's version stands for its code; weights that it fetched by itself are taken as it put
    them into the module.

    Raises:
        ModelNotFound: the library or the weights are missing.
    """
    library, wanted = _library(choice), _wanted(choice, base_folder)
    yield f"{library.distribution} {_version(library, choice.source)}".encode()
    if library.adapt is not from_huggingface and wanted.option("pretrained", bool, False):
        yield _held(borrow(choice, base_folder))


def borrowed_files(choice: ModelChoice, base_folder: Path) -> list[Path]:
    """Files that decide a borrowed model's answers: a checkpoint's, and the recipe's weights.

    Raises:
        ModelNotFound: the library or the checkpoint is missing.
    """
    library, wanted = _library(choice), _wanted(choice, base_folder)
    found = [] if wanted.weights is None else [wanted.weights]
    if library.adapt is from_huggingface:
        _version(library, choice.source)
        folder = checkpoint_folder(wanted)
        found += checkpoint_files(folder) if folder else []
    return found


def _held(borrowed: Borrowed) -> bytes:
    """Hash of every weight, by name."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(borrowed.module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _version(library: Library, source: str) -> str:
    try:
        return version(library.distribution)
    except PackageNotFoundError as error:
        raise ModelNotFound(
            f"{source}: package {library.distribution!r} expected for this model; found none: "
            f"pip install 'saccade[{library.extra}]'"
        ) from error


def _library(choice: ModelChoice) -> Library:
    return next(one for prefix, one in LIBRARIES.items() if choice.source.startswith(prefix))


def _wanted(choice: ModelChoice, base_folder: Path) -> Wanted:
    _, _, name = choice.source.partition(":")
    if not name:
        raise ModelContract(f"a name expected after {choice.source!r}; found none")
    weights = None if choice.weights is None else base_folder / choice.weights
    return Wanted(choice.source, name, choice.options, choice.classes, weights, base_folder)
