from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from saccade.pipeline.fusion import halve_mean, halve_mode
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.pyramid import complete_pyramid
from saccade.pipeline.store import ImageStore

Make = Callable[[ImagePlan], ImageStore]


@pytest.mark.parametrize("scores", ["uint8", "float16", "float32"])
@pytest.mark.parametrize(
    ("tile", "chunk", "shard"),
    [(16, 16, 64), (48, 16, 96), (51, 17, 51), (13, 13, 52), (64, 16, 64)],
)
def test_the_pyramid_is_the_whole_image_halved_again_and_again(
    make_store: Make, results: Any, tile: int, chunk: int, shard: int, scores: Any
) -> None:
    image = (197, 263)
    passes = (
        results.layout("glance", 0, image, 8, tile=8, chunk=8, shard=8),
        results.layout("stare", 1, image, 1, tile=tile, chunk=chunk, shard=shard),
    )
    plan = replace(results.plan_of(passes), scores=scores)
    store = make_store(plan)
    results.write_all(store, results.random_answers(plan, 29, (0, 1, 2, 255)))
    above = store.read("0", Box.of(plan.shape))
    labels = store.read("labels/classes/0", Box.of(plan.shape))
    for level, shape in enumerate(plan.pyramid_shapes[1:], start=1):
        above, labels = halve_mean(above), halve_mode(labels)
        assert above.shape[1:] == labels.shape == shape
        np.testing.assert_array_equal(store.read(str(level), Box.of(shape)), above)
        np.testing.assert_array_equal(store.read(f"labels/classes/{level}", Box.of(shape)), labels)
    assert level >= 3


def test_completing_again_writes_the_same_shards(
    make_store: Make, three_passes: ImagePlan, results: Any
) -> None:
    store = make_store(three_passes)
    for index, answer in enumerate(results.random_answers(three_passes, 31)):
        results.write_pass(store, index, answer)
    first = complete_pyramid(store, three_passes)
    assert first
    assert complete_pyramid(store, three_passes) == first


def test_a_pass_in_one_window_writes_all_its_shards_of_every_level(
    make_store: Make, results: Any
) -> None:
    only = results.layout("only", 0, (113, 71), 1, tile=16, chunk=16, shard=32, window_tiles=0)
    plan = results.plan_of((only,))
    store = make_store(plan)
    answers = results.random_answers(plan, 37)
    results.write_all(store, answers)
    np.testing.assert_array_equal(store.read("0", Box.of(plan.shape)), answers[0][0])
    assert "passes/only/scores" not in store.array_paths
