"""Answers that are on their way."""

from __future__ import annotations

from saccade.workers.pending import OneBehind, Pending


def test_an_answer_is_waited_for_only_where_it_is_not_there_yet() -> None:
    waited: list[str] = []
    assert Pending("there").settled
    assert Pending("there").result() == "there"
    late = Pending("late", lambda: waited.append("late"))
    assert not late.settled
    assert waited == []
    assert late.result() == "late"
    assert waited == ["late"]


def test_work_is_finished_once_the_next_has_begun_in_order_and_once() -> None:
    done: list[int] = []
    behind = OneBehind()
    for number in range(3):
        behind.follow(lambda number=number: done.append(number))  # type: ignore[misc]
        assert done == list(range(number))
    behind.finish()
    behind.finish()
    assert done == [0, 1, 2]
