"""What tests of exports run: a square of texture under a recipe of two passes."""

from __future__ import annotations

from typing import Any

import numpy as np

SIDE = 192
MODEL = {"source": "builtin:tissue", "options": {"rgb": False}}
RECIPE: dict[str, Any] = {
    "passes": [
        {"name": "glance", "resolution": {"downsample": 8}, "model": MODEL, "tile": 8},
        {
            "name": "look",
            "resolution": {"downsample": 2},
            "model": MODEL,
            "tile": 32,
            "select": {"by": "top_k", "k": 4},
        },
    ],
    "output": {"chunk": 32, "shard": 32},
}


def square_of_texture(seed: int) -> np.ndarray:
    """``(SIDE, SIDE)`` uint8: flat but for one square."""
    pixels = np.full((SIDE, SIDE), 120, np.uint8)
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
    pixels[32:96, 64:128] = np.kron(coarse, np.ones((8, 8), np.uint8))
    return pixels
