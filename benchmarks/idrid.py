"""A folder of IDRiD photographs made ready: which images, their truth, and which part each is for.

IDRiD holds 81 fundus photographs of 12 megapixels with lesions outlined to the pixel (Porwal et
al., *Indian Diabetic Retinopathy Image Dataset (IDRiD): A Database for Diabetic Retinopathy
Screening Research*, Data 3(3), 2018; CC BY 4.0). To get it: IEEE DataPort,
https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid,
the archive ``A. Segmentation.zip``, free with an account. Two layouts are understood:

* the archive unpacked (``1. Original Images``, ``2. All Segmentation Groundtruths``): the lesion
  masks of each photograph are gathered into one image of bits, in OUT;
* a folder of ``NAME.jpg``, ``NAME_bits.png`` and ``manifest.json``, a list of objects with ``id``
  and ``split`` ('train' or 'test').

Bits: 1 microaneurysm, 2 haemorrhage, 4 hard exudate, 8 soft exudate, 16 optic disc; the last is no
lesion and no class. The official test images stay what they are; of the training images a few are
set aside for validation, chosen by a hash of their names and a seed.

    python benchmarks/idrid.py FOLDER -o OUT      # writes images.csv, truth.yaml, split.csv
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"lesion": 15, "microaneurysm": 1, "haemorrhage": 2, "hard_exudate": 4, "soft_exudate": 8}
"""Bits of each class; a lesion is any of the four kinds."""
PUBLISHED_MASKS = {
    "MA": ("1. Microaneurysms", 1),
    "HE": ("2. Haemorrhages", 2),
    "EX": ("3. Hard Exudates", 4),
    "SE": ("4. Soft Exudates", 8),
    "OD": ("5. Optic Disc", 16),
}
"""Per suffix of a published mask its folder and its bit."""
PUBLISHED_PARTS = {"a. Training Set": "train", "b. Testing Set": "test"}
VALIDATION, SEED = 9, 0


@dataclass(frozen=True, slots=True)
class Photograph:
    """One image of the set."""

    name: str
    """As the set has it."""
    image: Path
    """Its pixels."""
    bits: Path
    """Its truth, uint8, one bit per class."""
    part: str
    """Officially: 'train' or 'test'."""


def photographs(folder: Path, out: Path) -> list[Photograph]:
    """Every photograph of a folder, in either layout.

    Raises:
        SystemExit: it is neither.
    """
    if (folder / "manifest.json").is_file():
        return flat(folder)
    roots = [folder, folder / "A. Segmentation"]
    for root in roots:
        if (root / "1. Original Images").is_dir():
            return published(root, out / "bits")
    raise SystemExit(
        f"{folder}: manifest.json or the unpacked 'A. Segmentation' expected, neither found; "
        f"see the first lines of {Path(__file__).name} for where to get the photographs"
    )


def flat(folder: Path) -> list[Photograph]:
    """Those that a manifest lists."""
    listed = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return [
        Photograph(
            one["id"], folder / f"{one['id']}.jpg", folder / f"{one['id']}_bits.png", one["split"]
        )
        for one in listed
    ]


def published(root: Path, bits: Path) -> list[Photograph]:
    """Those of the published archive; their masks are gathered into ``bits``."""
    bits.mkdir(parents=True, exist_ok=True)
    found = []
    for folder, part in PUBLISHED_PARTS.items():
        for image in sorted((root / "1. Original Images" / folder).glob("*.jpg")):
            path = bits / f"{image.stem}_bits.png"
            if not path.is_file():
                gather(root / "2. All Segmentation Groundtruths" / folder, image, path)
            found.append(Photograph(image.stem, image, path, part))
    return found


def gather(masks: Path, image: Path, path: Path) -> None:
    """One image of bits from a photograph's masks; a lesion that it does not have has no mask."""
    with Image.open(image) as opened:
        bits = np.zeros((opened.height, opened.width), np.uint8)
    for suffix, (folder, bit) in PUBLISHED_MASKS.items():
        mask = masks / folder / f"{image.stem}_{suffix}.tif"
        if mask.is_file():
            with Image.open(mask) as opened:
                marked = np.asarray(opened.convert("RGB")).any(axis=2)
            bits |= marked.astype(np.uint8) * np.uint8(bit)
    Image.fromarray(bits).save(path, optimize=True)


def split(found: Iterable[Photograph], validation: int, seed: int) -> dict[str, str]:
    """Name to part: 'test' as it is, of the others ``validation`` by hash, the rest 'train'."""
    photographs = list(found)
    training = [one.name for one in photographs if one.part != "test"]
    aside = set(sorted(training, key=lambda name: _hash(name, seed))[:validation])
    part = {True: "validation", False: "train"}
    return {p.name: "test" if p.part == "test" else part[p.name in aside] for p in photographs}


def _hash(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def write(found: Sequence[Photograph], parts: dict[str, str], out: Path) -> None:
    """``images.csv``, ``truth.yaml`` and ``split.csv``; paths are relative to them."""
    images = [(os.path.relpath(one.image, out), one.name) for one in found]
    _write_csv(out / "images.csv", ("image", "name"), images)
    _write_csv(out / "split.csv", ("name", "part"), list(parts.items()))
    pattern = os.path.relpath(found[0].bits.parent, out)
    lines = [
        "# Lesions of IDRiD (Porwal, Pachade, Kokare et al., CC BY 4.0), one bit per class.",
        f"path: {json.dumps(f'{pattern}/{{name}}_bits.png')}",
        "classes:",
        *(f"  {name}: {{bit: {bit}}}" for name, bit in CLASSES.items()),
    ]
    (out / "truth.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the photographs")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--validation", type=int, default=VALIDATION, help="training images aside")
    parser.add_argument("--seed", type=int, default=SEED, help="of the choice")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = photographs(options.folder, options.out)
    parts = split(found, options.validation, options.seed)
    write(found, parts, options.out)
    counts = {part: list(parts.values()).count(part) for part in ("train", "validation", "test")}
    print(f"{options.out}: " + ", ".join(f"{count} {part}" for part, count in counts.items()))


if __name__ == "__main__":
    main()
