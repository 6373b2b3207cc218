"""What a run has done, counted from the records of its journal."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.monitoring.passes import pass_totals
from saccade.jobs.monitoring.tally import Tally


def plan(name: str, units: int, **tiles: int) -> dict[str, Any]:
    return {"kind": "receipt", "image": "a", "plans": name, "step": "select", "units": units,
            "tiles": tiles}  # fmt: skip


def sweep(name: str, done: int, failed: int = 0, pixels: int = 11) -> dict[str, Any]:
    return {
        "kind": "receipt",
        "image": "a",
        "pass": name,
        "tiles": {"done": done, "degraded": 0, "failed": failed},
        "seconds": {"read": 0.5},
        "pixels": pixels,
        "errors": ["why"] * failed,
    }


def told(*records: dict[str, Any]) -> Tally:
    tally = Tally.of(["a", "b"])
    for record in records:
        tally.add(record)
    return tally


def test_tiles_pixels_and_seconds_are_sums_over_units_and_passes() -> None:
    tally = told(plan("g", 2, selected=5), sweep("g", 2), sweep("g", 3, failed=1), sweep("f", 7))
    assert (tally.tiles_done, tally.pixels) == (12, 33)
    image = tally.images["a"]
    assert image.units == {"g": [2, 2], "f": [1, 0]}
    assert (image.tiles_failed, image.errors) == (1, ["why"])
    assert image.seconds["g"] == {"read": 1.0}


def test_states_are_counted_and_an_image_set_aside_counts_as_done_work() -> None:
    tally = told({"kind": "quarantine", "image": "b", "reason": "bad"}, plan("g", 4), sweep("g", 1))
    assert (tally.count("running"), tally.count("quarantined")) == (1, 1)
    assert tally.images["b"].reason == "bad"
    assert tally.work_done == 1.25


def test_the_share_refined_is_of_passes_that_chose() -> None:
    assert told(plan("g", 2, selected=5)).share_refined is None
    chosen = told(plan("g", 2, selected=5), plan("f", 2, selected=3, of=13))
    assert chosen.share_refined == 3 / 13


def test_an_image_that_begins_anew_is_counted_from_nothing() -> None:
    tally = told(sweep("g", 3), {"kind": "quarantine", "image": "a", "reason": "bad"},
                 {"kind": "restart", "image": "a"}, sweep("g", 2))  # fmt: skip
    assert (tally.tiles_done, tally.images["a"].state) == (2, "running")


def test_a_complete_image_is_all_done() -> None:
    tally = told(plan("g", 4), {"kind": "image", "image": "a"})
    assert (tally.images["a"].share_done, tally.count("complete")) == (1.0, 1)


def test_records_of_other_images_and_of_other_kinds_change_nothing() -> None:
    tally = told({"kind": "opened", "epoch": 1}, {"kind": "image", "image": "elsewhere"},
                 {"kind": "started", "image": "a", "unit": "u"})  # fmt: skip
    assert tally == Tally.of(["a", "b"])


def test_only_the_first_errors_are_kept() -> None:
    assert len(told(*[sweep("g", 0, failed=3)] * 11).images["a"].errors) == 20


# ------------------------------------------------------------------------------- large archives

NAMES = "abcde"


def about(kind: str, image: str, count: int) -> dict[str, Any]:
    made = {
        "plan": plan("f", 7, selected=count, of=13),
        "sweep": sweep("f", count),
        "unreadable": sweep("f", count, failed=1),
        "memory": plan("g", 2, selected=3) | {"memory": {"g": {"projected_nbytes": count}}},
    }
    return made.get(kind, {"kind": kind, "reason": "why"}) | {"image": image}


RECORDS = st.lists(
    st.builds(
        about,
        st.sampled_from(
            ["plan", "sweep", "unreadable", "memory", "image", "image", "quarantine", "restart"]
        ),
        st.sampled_from([*NAMES, "elsewhere"]),
        st.integers(1, 11),
    )
)


@given(RECORDS, st.integers(0, 5))
def test_images_that_are_only_counted_count_as_those_that_are_told(
    records: list[dict[str, Any]], few: int
) -> None:
    told, counted = Tally.of(NAMES), Tally.of(NAMES, told=few, by_pass=True)
    ended = set[str]()
    for record in records:
        # a complete image gets no more records until it begins anew
        if record["kind"] == "restart" or record["image"] not in ended:
            told.add(record)
            counted.add(record)
        (ended.add if record["kind"] == "image" else ended.discard)(record["image"])
        if record["kind"] in ("receipt", "quarantine") and told_complete(told, record["image"]):
            ended.add(record["image"])
    states = ("waiting", "running", "complete", "quarantined")
    assert [counted.count(state) for state in states] == [told.count(state) for state in states]
    assert [counted.state(name) for name in NAMES] == [told.state(name) for name in NAMES]
    assert counted.unfinished().tolist() == told.unfinished().tolist()
    assert (counted.tiles_done, counted.pixels) == (told.tiles_done, told.pixels)
    assert counted.share_refined == told.share_refined
    assert abs(counted.work_done - told.work_done) < 1e-9
    assert totals(counted) == totals(told)
    assert counted.untold == len(NAMES) - len(counted.images)
    for name, image in told.images.items():
        if image.state in ("running", "quarantined") or image.tiles_failed:
            assert counted.images[name] == image


def totals(tally: Tally) -> list[dict[str, Any]]:
    """Of every pass, without what only the most of any image is known of."""
    trees = [one.tree() for one in pass_totals(tally, ["g", "f"])]
    return [{word: value for word, value in tree.items() if word != "memory"} for tree in trees]


def test_passes_of_a_large_archive_are_whole_also_after_an_image_began_anew() -> None:
    tally = Tally.of((f"i{number}" for number in range(1000)), told=3, by_pass=True)
    for number in range(900):
        for kind in ("plan", "sweep", "image"):
            tally.add(about(kind, f"i{number}", 2))
    tally.add(about("restart", "i700", 2))
    (told,) = pass_totals(tally)
    assert (told.images, told.units_done, told.units_planned) == (899, 899, 899 * 7)
    assert (told.tiles_done, told.share_refined) == (2 * 899, 2 / 13)
    assert (told.pixels, told.seconds) == (11 * 899, {"read": 0.5 * 899})


def told_complete(tally: Tally, name: str) -> bool:
    return name in tally.images and tally.images[name].state == "complete"


def test_of_a_large_archive_only_what_needs_care_is_told_one_by_one() -> None:
    tally = Tally.of((f"i{number}" for number in range(10_000)), told=3)
    for number in range(9000):
        tally.add(about("sweep", f"i{number}", 2))
        tally.add(about("image", f"i{number}", 2))
    tally.add(about("sweep", "i9000", 2))
    tally.add(about("quarantine", "i9001", 2))
    assert list(tally.images) == ["i0", "i1", "i2", "i9000", "i9001"]
    assert (tally.count("complete"), tally.count("waiting")) == (9000, 998)
    assert tally.tiles_done == 2 * 9001
