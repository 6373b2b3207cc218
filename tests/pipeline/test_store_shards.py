"""A shard's bytes depend on its values alone: not on how they lie in memory, nor on a memo."""

import numpy as np
import pytest

from saccade.pipeline.store_layout import ArraySpec
from saccade.pipeline.store_shards import ChunkMemo, encode_shard
from saccade.pipeline.uniform import uniform


def spec_of(dtype: str, channels: int = 3) -> ArraySpec:
    return ArraySpec("0", (channels, 64, 64), np.dtype(dtype), 0, (16, 16), (64, 64))


def random_planes(dtype: str) -> np.ndarray:
    values = np.random.default_rng(5).integers(0, 200, (3, 64, 64))
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_a_memo_of_another_array_changes_no_byte(dtype: str) -> None:
    spec, first = spec_of(dtype), random_planes(dtype)
    second = first.copy()
    second[1, 20:30, 20:30] += 1
    memo = ChunkMemo()
    assert encode_shard(spec, first, memo) == encode_shard(spec, first)
    assert encode_shard(spec, second, memo) == encode_shard(spec, second)


def test_a_memo_tells_zero_from_minus_zero() -> None:
    spec, zeros = spec_of("float32"), random_planes("float32")
    zeros[0, 3, 3] = 0.0
    minus = zeros.copy()
    minus[0, 3, 3] = -0.0
    memo = ChunkMemo()
    encode_shard(spec, zeros, memo)
    assert encode_shard(spec, minus, memo) == encode_shard(spec, minus)


@pytest.mark.parametrize("shape", [(64, 64), (37, 53)])
def test_a_uniform_array_has_the_bytes_of_its_copy(shape: tuple[int, int]) -> None:
    spec = spec_of("uint8")
    planes = uniform(np.array([0, 4, 9], np.uint8)[:, None, None], shape)
    assert encode_shard(spec, planes) == encode_shard(spec, planes.copy())


def test_an_empty_uniform_array_is_not_stored() -> None:
    assert encode_shard(spec_of("uint8"), uniform(np.zeros((3, 1, 1), np.uint8), (64, 64))) is None
