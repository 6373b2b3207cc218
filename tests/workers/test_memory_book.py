from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fakes import FakeSource, Lab, noise, one_pass, pass_of, several_passes

from saccade.pipeline.errors import StoreError
from saccade.pipeline.recipe import Recipe
from saccade.workers.context import WorkerContext
from saccade.workers.device_simulated import simulated_memory
from saccade.workers.memory import Account, Budget
from saccade.workers.memory_size import MemoryLimit
from saccade.workers.resolving import probe_case
from saccade.workers.tasks import WorkerSpec


def worker(lab: Lab, device: str, tree: dict, **details: object) -> WorkerContext:  # type: ignore[type-arg]
    recipe = Recipe.model_validate(tree)
    spec = WorkerSpec(lab.folder / "run", recipe.canonical_json(), lab.models, device=device)
    return WorkerContext(replace(spec, **details))  # type: ignore[arg-type]


def accounts(lab: Lab, context: WorkerContext, side: int = 512) -> dict[str, Account]:
    entry = lab.entry("one", noise(side, side))
    return dict(context.resolve(entry, cache=None).accounts)


def test_a_budget_is_what_the_first_worker_found_and_shared_by_all(lab: Lab) -> None:
    tree = one_pass("echo")
    device = "simulated:1000003"
    first = worker(lab, device, tree, limit=MemoryLimit(nbytes=600_000), sharing=3)
    assert first.book.budget() == Budget(200_000)
    (path,) = (lab.folder / "run" / "memory").glob("budget-*.json")
    path.write_text(json.dumps(Budget(7, 5).to_dict()))
    assert worker(
        lab, device, tree, limit=MemoryLimit(nbytes=600_000), sharing=3
    ).book.budget() == (Budget(7, 5))
    assert worker(lab, device, tree, sharing=2).book.budget() == Budget(500_001)


def test_a_model_s_memory_is_probed_once_and_found_again_by_every_worker(lab: Lab) -> None:
    device = "simulated:1GiB:1009:7"
    tree = one_pass("echo", tile=64)
    simulated_memory(device).asked.clear()
    first = accounts(lab, worker(lab, device, tree))
    probed = len(simulated_memory(device).asked)
    assert probed == 3
    assert accounts(lab, worker(lab, device, tree)) == first
    assert len(simulated_memory(device).asked) == probed
    assert first["dense"].allowed_nbytes == 2**30
    batch_px = (first["dense"].projected_nbytes - 1009) / 7
    assert batch_px == pytest.approx(16 * 512 * 512)


def test_a_file_of_the_run_that_makes_no_sense_stops_it(lab: Lab) -> None:
    tree = one_pass("echo")
    accounts(lab, worker(lab, "simulated:1GiB:11:13", tree))
    for path in (lab.folder / "run" / "memory").iterdir():
        path.write_text("{}")
    with pytest.raises(StoreError, match="restore it, or use a new folder"):
        accounts(lab, worker(lab, "simulated:1GiB:11:13", tree))


def test_what_ran_out_of_memory_teaches_every_later_plan_of_the_run(lab: Lab) -> None:
    context = worker(lab, "simulated:1GiB:1:17", one_pass("echo", tile=64))
    entry = lab.entry("one", noise(512, 512))
    draft = context.resolve(entry, cache=None).plan
    before = draft.last
    assert before.batch > 7
    source = FakeSource(noise(512, 512))
    case = probe_case(context.recipe.passes[0], draft, draft.last, source)
    side = before.window_tiles * before.tile_px
    context.book.limit_for(case).learn(7, (side, side))
    after = context.resolve(entry, cache=None).plan.last
    assert after.batch * (after.window_tiles * after.tile_px) ** 2 < 7 * side**2
    again = context.book.limit_for(case)
    assert not again.allows(7, (side, side))
    assert again.allows(6, (side, side))


def test_a_model_that_takes_one_size_only_is_probed_with_batches(lab: Lab) -> None:
    device = "simulated:1GiB:19:23"
    tree = several_passes([pass_of("dense", "window_mean", 1, tile=64)])
    simulated_memory(device).asked.clear()
    found = accounts(lab, worker(lab, device, tree), side=3000)
    assert simulated_memory(device).asked == [(n, (64, 64)) for n in (1, 2, 3)]
    assert found["dense"].projected_nbytes > 19


def test_nothing_is_projected_of_a_model_that_can_not_be_probed(lab: Lab) -> None:
    found = accounts(lab, worker(lab, "simulated:100:1000:1", one_pass("echo")))
    assert found == {}
