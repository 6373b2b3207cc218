"""What has no end is refused at once: pipes, devices, loops of links and of directories."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from saccade.pipeline.errors import BrokenImage, SourceError, UnsupportedImage
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


def test_a_chain_of_directories_that_leads_back_is_damage_and_not_followed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "loop.tif", np.zeros((64, 64), np.uint8))
    with tifffile.TiffFile(tmp_path / "loop.tif") as tif:
        first = tif.pages.first.offset
    data = bytearray((tmp_path / "loop.tif").read_bytes())
    entries = struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    (tmp_path / "loop.tif").write_bytes(data)
    with pytest.raises(BrokenImage, match="leads back to byte"):
        open_source(tmp_path / "loop.tif")
