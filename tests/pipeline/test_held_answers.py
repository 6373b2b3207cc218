"""Composing through what is held gives what composing from the store gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from saccade.pipeline import held_answers
from saccade.pipeline.compose import compose_region, region_coverage
from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.held_answers import HeldAnswers
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.store import ImageStore

Make = Callable[[ImagePlan], ImageStore]


class Counting:
    """A store that counts what is read of it."""

    def __init__(self, store: ImageStore) -> None:
        self.store, self.reads = store, Counter[str]()

    def read(self, array: str, box: Box) -> np.ndarray:
        """As the store."""
        self.reads[array] += 1
        return self.store.read(array, box)


def fill(store: ImageStore) -> None:
    """Random answers in every pass."""
    rng = np.random.default_rng(4)
    for path in store.array_paths:
        spec = store.spec(path)
        most = 2 if path.endswith("status") else 256
        store.write(path, spec.area, rng.integers(0, most, spec.shape).astype(spec.dtype))


@pytest.mark.parametrize("least_ratio", [1, 99])
def test_strips_composed_through_what_is_held_are_those_of_the_store(
    make_store: Make, three_passes: ImagePlan, monkeypatch: pytest.MonkeyPatch, least_ratio: int
) -> None:
    monkeypatch.setattr(held_answers, "LEAST_RATIO", least_ratio)
    store = make_store(three_passes)
    fill(store)
    whole = Box.of(three_passes.shape)
    counting = Counting(store)
    held = HeldAnswers(counting, three_passes, whole)
    for strip in Grid(three_passes.shape, three_passes.last.shard_px):
        expected = compose_region(store, three_passes, strip)
        found = compose_region(held, three_passes, strip)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.labels, expected.labels)
        for one, other in zip(
            region_coverage(held, three_passes, strip),
            region_coverage(store, three_passes, strip),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
    glance = three_passes.passes[0].name
    assert counting.reads[f"passes/{glance}/status"] == 1
    strips = len(Grid(three_passes.shape, three_passes.last.shard_px))
    assert counting.reads[f"passes/{glance}/scores"] == (1 if least_ratio == 1 else strips)
