"""What a run counts, told to Ray, whose metrics Prometheus collects from every node.

Knows no metric by name: what there is, is told to it. Ray puts ``ray_`` before every name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ray
from ray.util.metrics import Counter, Gauge, Histogram


class Told(Protocol):
    """A metric, as far as Ray needs to know it."""

    @property
    def name(self) -> str:
        """As Prometheus knows it."""
        ...

    @property
    def kind(self) -> str:
        """'counter', 'gauge' or 'histogram'."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What its values are told apart by."""
        ...

    @property
    def help(self) -> str:
        """What it means."""
        ...


class RayMetrics:
    """Counters, gauges and histograms of this process's Ray; they count from 0.

    Args:
        run: labels that every value gets.
        bounds: of the bins of histograms.
    """

    def __init__(self, run: Mapping[str, str], bounds: Sequence[float]) -> None:
        self._run = dict(run)
        self._bounds = list(bounds)
        self._made: dict[str, Any] = {}

    def tell(self, metric: Told, value: float, labels: tuple[str, ...]) -> None:
        """Add to a counter, set a gauge, or show a value to a histogram; nothing without Ray."""
        if not ray.is_initialized():
            return
        if metric.name not in self._made:
            self._made[metric.name] = self._make(metric)
        made = self._made[metric.name]
        tags = dict(zip(metric.labels, labels, strict=True))
        if metric.kind == "counter":
            if value > 0:
                made.inc(value, tags)
        elif metric.kind == "gauge":
            made.set(value, tags)
        elif value > 0:
            made.observe(value, tags)

    def _make(self, metric: Told) -> Any:
        details: dict[str, Any] = {
            "description": metric.help,
            "tag_keys": (*self._run, *metric.labels),
        }
        if metric.kind == "histogram":
            details["boundaries"] = self._bounds
        kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        made = kinds[metric.kind](metric.name, **details)
        made.set_default_tags(self._run)
        return made
