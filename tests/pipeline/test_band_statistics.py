"""Statistics of bands: numpy's own answers, whatever pieces the samples come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from saccade.pipeline.band_statistics import BandStatistics, BandTally

PERCENTS = (0.0, 2.0, 37.5, 98.0, 100.0)
DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "int32", "uint32", "float16", "float32")


def measured(samples: np.ndarray, pieces: int) -> BandStatistics:
    """What a tally says of samples given in pieces, as often as it wants them."""
    tally = BandTally(samples.dtype, PERCENTS)
    for piece in np.array_split(samples, pieces):
        tally.add(piece)
    if tally.wants_more:
        for piece in np.array_split(samples, pieces):
            tally.add(piece)
    assert not tally.wants_more
    return tally.result()


def as_seen(samples: np.ndarray) -> np.ndarray:
    """Samples as a model sees them, in float64 for the oracle; finite ones."""
    wide = samples.astype(np.float32) if samples.dtype.itemsize > 2 else samples
    values = wide.astype(np.float64)
    return values[np.isfinite(values)]


@st.composite
def some_samples(draw: st.DrawFn) -> np.ndarray:
    """Samples of any type, with NaN and infinity among floats."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    width = 8 * dtype.itemsize
    floats = st.floats(-60000, 60000, width=width) if dtype.kind == "f" else None  # type: ignore[arg-type]
    odd = st.sampled_from([np.nan, np.inf, -np.inf])
    elements: Any = floats | odd if floats is not None else None
    samples: np.ndarray = draw(arrays.arrays(dtype, st.integers(1, 97), elements=elements))
    return samples


@given(some_samples(), st.integers(1, 5))
def test_percentiles_are_those_of_numpy_to_the_bit_of_a_float32(
    samples: np.ndarray, pieces: int
) -> None:
    found, values = measured(samples, pieces), as_seen(samples)
    assert found.valid_px == len(values)
    for percent in PERCENTS:
        wanted = np.percentile(values, percent) if len(values) else 0.0
        assert found.percentile(percent) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@given(some_samples(), st.integers(1, 5))
def test_mean_and_deviation_are_those_of_numpy(samples: np.ndarray, pieces: int) -> None:
    found = measured(samples, pieces)
    values = samples.astype(np.float64)
    values = values[np.isfinite(values)]
    scale = float(np.abs(values).max()) if len(values) else 1.0
    assert found.mean == pytest.approx(values.mean() if len(values) else 0, abs=1e-9 * scale)
    assert found.std == pytest.approx(values.std() if len(values) else 0, abs=1e-7 * scale)


def test_outliers_cost_no_precision() -> None:
    samples = np.linspace(300, 301, 10007, dtype=np.float32)
    samples[:3] = -3e38, 3e38, 1e30
    found = measured(samples, 7)
    assert found.percentile(37.5) == np.percentile(samples.astype(np.float64), 37.5)


def test_nothing_but_absent_samples_gives_zeros() -> None:
    found = measured(np.full(5, np.nan, np.float32), 1)
    assert found == BandStatistics(0, 0.0, 0.0, tuple((p, 0.0) for p in PERCENTS))


def test_json_gives_the_statistics_back() -> None:
    found = measured(np.arange(11, dtype=np.uint8), 2)
    assert BandStatistics.from_dict(found.to_dict()) == found
