"""Names for what follows from facts alone: the same facts, the same name. Knows no file."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from typing import Any


def hash_of(facts: Any) -> str:
    """Of plain JSON, whatever the order of its keys: 32 hexadecimal digits."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def own_version() -> str:
    """Of this package, as installed; its metadata are parsed once."""
    return version("saccade")
