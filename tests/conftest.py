"""Fixtures that every test may use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from fakes import Lab
    from object_server import Bucket

# No test depends on timing: the machines that run them are shared.
settings.register_profile("saccade", deadline=None)
settings.load_profile("saccade")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: what runs several files at a time ends with short ones."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests measure stays theirs: the user's cache is neither read nor written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real slides and rasters; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SACCADE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set SACCADE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds ``fake_models.py`` and nothing that could be taken for a neighbour."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copy(Path(__file__).with_name("fake_models.py"), folder)
    return folder


@pytest.fixture
def lab(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Where a test runs recipes over images that it made."""
    from fakes import Lab  # imports torch, which most tests can do without

    return Lab(tmp_path, model_folder, monkeypatch)


@pytest.fixture(scope="session")
def object_server() -> Iterator[int]:
    """The port of a real S3 server on localhost; skipped where it can't be had."""
    pytest.importorskip("obstore", reason="needs the extra 'cloud'")
    pytest.importorskip("moto", reason="needs the extra 'test': an S3 server")
    from object_server import serving_objects

    with serving_objects() as port:
        yield port


@pytest.fixture
def bucket(object_server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket behind a proxy that can inject faults; the environment points there."""
    from object_server import made_bucket

    with made_bucket(object_server, tmp_path, monkeypatch) as made:
        yield made
