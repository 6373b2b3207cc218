"""What a run counts: for Prometheus, in a file, on a dashboard."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeSource, Lab, noise, one_pass
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from saccade.jobs.monitoring import metrics_export
from saccade.jobs.monitoring.metrics import REGISTRY, UNIT_SECONDS, Gauges, Sample, samples_of
from saccade.jobs.monitoring.metrics_text import Totals, as_text
from saccade.jobs.monitoring.status import read_status
from saccade.jobs.monitoring.tally import Tally
from saccade.pipeline.errors import StoreError
from saccade.pipeline.geometry import Box

DASHBOARD = Path(__file__).parents[3] / "infra" / "grafana" / "saccade.json"


def parsed(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """By name, by the values of all labels but the run's."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(v for k, v in sample.labels.items() if k != "run")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def told(records: list[dict[str, Any]], images: int = 3) -> dict[str, dict[tuple[str, ...], float]]:
    totals, gauges = Totals(), Gauges()
    for record in records:
        for sample in (*samples_of(record), *gauges.add(record)):
            totals.add(sample)
    return parsed(as_text(totals, gauges.samples(images, 1_000_010.0), {"run": "r"}))


def started(unit: str, at: float) -> dict[str, Any]:
    return {"kind": "started", "image": "a", "unit": unit, "at": at}


def receipt(unit: str, at: float, **more: Any) -> dict[str, Any]:
    return {
        "kind": "receipt",
        "image": "a",
        "unit": unit,
        "pass": "g",
        "tiles": {"done": 2, "degraded": 1, "failed": 3},
        "seconds": {"read": 0.5, "device": 0.25},
        "pixels": 101,
        "read_nbytes": 303,
        "nbytes": 17,
        "splits": 1,
        "worker": "w",
        "queued_nbytes": {"read": 13, "write": 5},
        "at": at,
        **more,
    }


def test_counters_are_sums_over_receipts() -> None:
    found = told([receipt("u", 1_000_001.0), receipt("v", 1_000_002.0)])
    assert found["saccade_units_total"] == {("sweep", "g"): 2}
    assert found["saccade_tiles_total"][("g", "failed")] == 6
    assert found["saccade_read_bytes_total"] == {("g",): 606}
    assert found["saccade_written_bytes_total"] == {("g",): 34}
    assert found["saccade_lane_seconds_total"][("g", "read")] == 1.0
    assert found["saccade_splits_total"] == {("g",): 2}
    assert found["saccade_failures_total"] == {(): 0}
    assert found["saccade_queue_bytes"] == {("read",): 13, ("write",): 5}
    assert found["saccade_workers"] == {(): 1}


def test_a_unit_s_time_runs_from_being_given_to_a_worker_until_its_receipt() -> None:
    found = told([started("u", 1_000_000.0), receipt("u", 1_000_002.5), receipt("v", 1_000_003.0)])
    assert found["saccade_unit_seconds_count"] == {("sweep", "g"): 1}
    assert found["saccade_unit_seconds_sum"] == {("sweep", "g"): 2.5}
    buckets = found["saccade_unit_seconds_bucket"]
    assert (buckets[("sweep", "g", "1")], buckets[("sweep", "g", "3")]) == (0, 1)


def test_every_image_is_in_one_state() -> None:
    records: list[dict[str, Any]] = [
        receipt("u", 1.0),
        {"kind": "image", "image": "a"},
        {"kind": "quarantine", "image": "b", "reason": "bad"},
        {"kind": "restart", "image": "a"},
        receipt("u", 2.0),
    ]
    states = ("waiting", "running", "complete", "quarantined")
    found = told(records)["saccade_images"]
    assert [found[(state,)] for state in states] == [1, 1, 0, 1]


@given(st.lists(st.floats(0, 1e5), min_size=1))
def test_a_histogram_s_bins_rise_to_its_count(values: list[float]) -> None:
    totals = Totals()
    for value in values:
        totals.add(Sample(UNIT_SECONDS, value, ("sweep", "g")))
    found = parsed(as_text(totals, (), {}))
    bins = list(found["saccade_unit_seconds_bucket"].values())
    assert bins == sorted(bins)
    assert bins[-1] == found["saccade_unit_seconds_count"][("sweep", "g")] == len(values)


@given(st.text())
def test_any_name_of_a_run_can_be_read_back(name: str) -> None:
    text = as_text(Totals({("saccade_failures_total", ()): 7}), (), {"run": name})
    (family,) = [
        f
        for f in text_string_to_metric_families(text)
        if f.name == "saccade_failures" and f.samples
    ]
    assert family.samples[0].value == 7
    assert family.samples[0].labels["run"] == name


def test_every_metric_is_documented_and_of_a_kind_that_prometheus_knows() -> None:
    assert len({metric.name for metric in REGISTRY}) == len(REGISTRY)
    for metric in REGISTRY:
        assert metric.name.startswith("saccade_")
        assert metric.help.endswith(".")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.kind in ("counter", "gauge", "histogram")


def test_the_dashboard_uses_every_metric_and_no_other() -> None:
    used = set(re.findall(r"saccade_[a-z_]+", json.dumps(json.loads(DASHBOARD.read_text()))))
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert named == {metric.name for metric in REGISTRY}


def test_a_run_keeps_a_file_of_what_it_counted_that_agrees_with_its_status(
    lab: Lab, tmp_path: Path
) -> None:
    file = tmp_path / "metrics" / "run.prom"
    bad = FakeSource(noise(64, 64), broken=(Box(0, 0, 64, 64),))
    summary = lab.run_all(
        one_pass("echo", tile=16, chunk=64),
        {"one": noise(97, 89), "two": noise(64, 64), "bad": bad},
        metrics_file=file,
    )
    found, status = parsed(file.read_text()), read_status(summary.folder)
    assert found["saccade_tiles_total"][("dense", "done")] == status.tally.tiles_done
    assert found["saccade_pixels_total"] == {("dense",): status.tally.pixels}
    assert found["saccade_images"][("complete",)] == 2
    assert found["saccade_images"][("quarantined",)] == 1
    assert found["saccade_failures_total"][()] >= 1
    assert list(file.parent.iterdir()) == [file]


def test_images_past_those_told_one_by_one_wait_too(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, at_first = tmp_path / "run.prom", list[dict[tuple[str, ...], float]]()

    def seen(_: object) -> AbstractContextManager[None]:
        at_first.append(parsed(file.read_text())["saccade_images"])
        return nullcontext()

    images = {"one": noise(64, 64), "two": noise(64, 65), "three": noise(64, 66)}
    few = Tally.of(images, told=1)
    monkeypatch.setattr(Tally, "of", lambda *_: few)
    monkeypatch.setattr(metrics_export, "_telling", seen)
    lab.run_all(one_pass("echo", tile=32, chunk=64), images, metrics_file=file)
    assert [states[("waiting",)] for states in at_first] == [3]


def test_a_run_that_goes_on_counts_on(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "run.prom"
    summary = lab.run_all(one_pass("echo", tile=16, chunk=64), {"one": noise(97, 89)})
    from saccade.jobs.monitoring.metrics_export import MetricsExport

    export = MetricsExport(summary.folder / "journal", 2, 1, {"run": "r"}, file)
    export.tell()
    before = parsed(file.read_text())["saccade_tiles_total"]
    export.tell()
    assert parsed(file.read_text())["saccade_tiles_total"] == before


def test_a_file_that_can_t_be_written_is_refused_before_work_starts(
    lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        lab.run(one_pass("echo"), noise(64, 64), metrics_file=tmp_path / "file" / "run.prom")
