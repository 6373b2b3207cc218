"""Items of one long array inside a JSON object, one at a time, in bounded memory. Pure but for I/O.

Python's own parser wants a document whole. Here values are cut out of a window on the text that
grows only as long as a single value asks for it.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

MAX_ITEM_CHARS = 16 << 20
"""Longest value that is taken for one."""
BLOCK_NBYTES = 1 << 16
_BLANKS = " \t\r\n"
_BEHIND = frozenset(_BLANKS + ",:]}")
"""What may follow a value."""


class JsonDamage(ValueError):
    """Text that is not the object that was expected."""


def items_of(file: BinaryIO, key: str) -> Iterator[Any]:
    """The items of the array under a key of the object that a file holds.

    Raises:
        JsonDamage: it holds something else, or ends too early.
        OSError: it can't be read.
    """
    text = _Text(file)
    text.expect("{")
    found, more = False, text.peek() != "}"
    while more:
        name = text.value()
        text.expect(":")
        if name == key and text.peek() == "[":
            found = True
            yield from _array(text)
        else:
            text.value()
        more = text.expect(",}") == ","
    if not found:
        raise JsonDamage(f"no array {key!r} in it")


def _array(text: _Text) -> Iterator[Any]:
    text.expect("[")
    if text.peek() == "]":
        text.expect("]")
        return
    while True:
        yield text.value()
        if text.expect(",]") == "]":
            return


class _Text:
    """A window on the text of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._window, self._at, self._ended = "", 0, False
        self._parse = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no blank; nothing at the end."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._window):
                return self._window[self._at]
            if self._ended:
                return ""
            self._read(BLOCK_NBYTES)

    def expect(self, allowed: str) -> str:
        """Step over one character, which must be one of these."""
        found = self.peek()
        if not found or found not in allowed:
            raise JsonDamage(f"{' or '.join(allowed)} expected, found {found or 'its end'!r}")
        self._at += 1
        return found

    def value(self) -> Any:
        """Step over a value."""
        self.peek()
        while True:
            try:
                value, end = self._parse(self._window, self._at)
                # a number that is cut short is one, too
                if self._ended or self._window[end : end + 1] in _BEHIND:
                    self._at = end
                    return value
            except (ValueError, RecursionError) as error:
                if self._ended or isinstance(error, RecursionError):
                    raise JsonDamage(f"not JSON: {str(error)[:200]}") from error
            if len(self._window) - self._at > MAX_ITEM_CHARS:
                raise JsonDamage(f"a value of more than {MAX_ITEM_CHARS} characters, or damage")
            self._read(max(BLOCK_NBYTES, len(self._window) - self._at))

    def _read(self, nbytes: int) -> None:
        """Take more in, and let go of what was stepped over."""
        block = self._file.read(nbytes)
        self._ended = not block
        try:
            more = self._decode(block, final=self._ended)
        except UnicodeDecodeError as error:
            raise JsonDamage("bytes that are no UTF-8") from error
        self._window, self._at = self._window[self._at :] + more, 0
