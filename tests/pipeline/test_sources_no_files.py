"""What is neither a file nor a folder is refused at once: it is never opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saccade.pipeline.errors import SourceError, UnsupportedImage
from saccade.pipeline.sources import open_source


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(UnsupportedImage, match="found a pipe or device"):
        open_source(tmp_path / "pipe.tif")


def test_a_device_is_refused_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "device.tif").symlink_to("/dev/zero")
    with pytest.raises(UnsupportedImage, match="found a pipe or device"):
        open_source(tmp_path / "device.tif")


def test_a_link_to_itself_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop.tif").symlink_to("loop.tif")
    with pytest.raises(SourceError, match="can't be read"):
        open_source(tmp_path / "loop.tif")
