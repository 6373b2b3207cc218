"""An answer that is stored comes back to the bit, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.pipeline.geometry import Box
from saccade.workers.answer import Said
from saccade.workers.folder import RunFolder
from saccade.workers.reading import WindowPixels
from saccade.workers.shared_answers import (
    AnsweredBatch,
    SharedAnswers,
    clear_scratch,
    drop_claims,
)
from saccade.workers.sharing import HELPER, OWNER, Helper

RANDOM = np.random.default_rng(3)


def answered() -> AnsweredBatch:
    """Three windows: damaged, without data in parts, and without any."""
    valid = RANDOM.random((13, 17)) > 0.5
    pixels = np.zeros((13, 17, 3), np.uint16)
    windows = (
        WindowPixels(pixels, None, (Box(1, 2, 3, 5),), ("the file is damaged",), True),
        WindowPixels(pixels, valid),
        WindowPixels(pixels, np.zeros((13, 17), bool)),
    )
    said = {
        i: Said(
            RANDOM.random((2, 13, 17), np.float32),
            {"saliency": RANDOM.random((13, 17), np.float32)},
            RANDOM.random((5, 3, 4)).astype(np.float16),
        )
        for i in (0, 1)
    }
    said[1].scores[0, 0, :3] = np.nan, -0.0, np.float32(1e-42)
    return AnsweredBatch(windows, said, splits=2)


def shared_in(folder: Path, key: str = "key") -> SharedAnswers:
    folder.mkdir(parents=True, exist_ok=True)
    shared = SharedAnswers(folder, lambda: key)
    shared.begin()
    return shared


def facts(one: AnsweredBatch) -> list[object]:
    """Everything in it, as bytes and values."""
    windows = [
        (w.pixels.nbytes, w.pixels.shape, w.pixels.dtype, w.lost, w.reasons, w.context_lost)
        for w in one.windows
    ]
    valid = [None if w.valid is None else w.valid.tobytes() for w in one.windows]
    said = {
        i: (
            s.scores.tobytes(),
            s.scores.dtype,
            {name: plane.tobytes() for name, plane in s.planes.items()},
            None if s.features is None else (s.features.dtype, s.features.tobytes()),
        )
        for i, s in one.said.items()
    }
    return [windows, valid, said, one.splits]


def test_what_was_said_comes_back_to_the_bit(tmp_path: Path) -> None:
    shared, given_ = shared_in(tmp_path / "unit"), answered()
    shared.put(7, given_)
    found = shared.get(7)
    assert found is not None
    assert facts(found) == facts(given_)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(0, 255))
def test_a_damaged_file_is_no_answer(tmp_path: Path, at: float, flip: int) -> None:
    shared, given_ = shared_in(tmp_path / "unit"), answered()
    shared.put(7, given_)
    (path,) = (tmp_path / "unit").rglob("*.npz")
    data = bytearray(path.read_bytes())
    index = int(at * len(data))
    data[index] ^= flip
    path.write_bytes(data if flip else data[:index])
    try:
        found = shared.get(7)
    except ValueError:
        return
    assert found is not None
    assert facts(found) == facts(given_)


def test_a_batch_is_claimed_once(tmp_path: Path) -> None:
    one, other = (shared_in(tmp_path / "unit") for _ in range(2))
    assert one.claimed_by(3) is None
    assert one.claim(3, "owner")
    assert not other.claim(3, "helper")
    assert other.claimed_by(3) == "owner"


def test_answers_under_another_key_are_not_there(tmp_path: Path) -> None:
    shared_in(tmp_path / "unit", "one").put(7, answered())
    assert shared_in(tmp_path / "unit", "other").get(7) is None


def test_what_is_cleared_leaves_no_folder_and_takes_nothing_more(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    shared = shared_in(folder.scratch("image", "unit"))
    shared.put(7, answered())
    shared.clear()
    with pytest.raises(FileNotFoundError):
        shared.put(8, answered())
    with pytest.raises(FileNotFoundError):
        shared.begin()
    clear_scratch(folder.scratch("image"))
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_what_an_owner_had_claimed_is_free_again_and_answers_stay(tmp_path: Path) -> None:
    shared = shared_in(tmp_path / "unit")
    for index, side in ((0, OWNER), (1, OWNER), (3, HELPER)):
        assert shared.claim(index, side)
    shared.put(3, answered())
    assert [*Helper(shared, 4).order()] == [2], "up to what the owner has reached"
    drop_claims(tmp_path / "unit", OWNER)
    assert [*Helper(shared, 4).order()] == [2, 1, 0]
    assert shared.get(3) is not None
    drop_claims(tmp_path / "nowhere", OWNER)
