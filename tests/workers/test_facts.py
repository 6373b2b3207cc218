"""Facts that are the same have one name, and others have others."""

from __future__ import annotations

from importlib.metadata import version

from saccade.workers.facts import hash_of, own_version


def test_a_key_depends_on_everything_that_it_is_made_of() -> None:
    assert hash_of([{"a": 1, "b": 2}, "c"]) == hash_of([{"b": 2, "a": 1}, "c"])
    assert hash_of([{"a": 1}, "c"]) != hash_of([{"a": 1}, "d"])


def test_our_version_is_that_of_the_installed_package() -> None:
    assert own_version() == version("saccade")
