from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.workers.lanes import ByteBudget, FirstFailure, LaneClosed, PassingQueue


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until_waiting(budget: ByteBudget, count: int) -> None:
    """Return when so many wait to be admitted: each has a ticket that is not yet served."""
    with budget._change:
        while budget._tickets - budget._serving < count:
            budget._change.wait(0.01)


@given(st.integers(1, 50), st.lists(st.integers(0, 80), min_size=1, max_size=20), st.integers(1, 4))
def test_no_more_is_held_than_the_limit_or_one_lone_holder(
    limit: int, sizes: list[int], threads: int
) -> None:
    budget = ByteBudget(limit)
    todo = list(sizes)
    held: list[int] = []
    excess: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not todo:
                    return
                nbytes = todo.pop()
            with budget.holding(nbytes):
                with lock:
                    held.append(nbytes)
                    positive = [n for n in held if n]
                    if sum(positive) > limit and len(positive) > 1:
                        excess.append(sum(positive))
                with lock:
                    held.remove(nbytes)

    workers = [in_thread(work) for _ in range(threads)]
    for worker in workers:
        worker.join()
    assert not excess
    assert budget.held_nbytes == 0
    assert budget.peak_nbytes <= max(limit, *sizes)


def test_one_that_is_larger_than_the_budget_is_admitted_alone() -> None:
    budget = ByteBudget(7)
    budget.acquire(5)
    admitted: list[int] = []

    def large() -> None:
        budget.acquire(11)
        admitted.append(budget.held_nbytes)

    thread = in_thread(large)
    until_waiting(budget, 1)
    assert not admitted
    budget.release(5)
    thread.join()
    assert admitted == [11]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(0, 6))
def test_beyond_what_is_enough_a_few_large_holders_are_admitted_within_the_limit(
    sizes: list[int], few: int
) -> None:
    budget = ByteBudget(100, enough_nbytes=20, few=few)
    for number, nbytes in enumerate(sizes):
        held = budget.held_nbytes + nbytes
        admitted = number == 0 or (held <= 100 and (held <= 20 or number < few))
        assert budget._admits(number, nbytes) == admitted
        if not admitted:
            break
        budget.acquire(nbytes)


def test_who_gave_back_what_it_held_is_no_holder_any_more() -> None:
    budget = ByteBudget(100, enough_nbytes=10, few=2)
    for _ in range(5):
        budget.acquire(30)
        budget.acquire(30)
        assert not budget._admits(budget._tickets, 30)
        budget.release(30)
        budget.release(30)


def test_admission_is_in_the_order_of_asking_even_where_a_later_one_would_fit() -> None:
    budget = ByteBudget(7)
    budget.acquire(5)
    order: list[int] = []

    def ask(nbytes: int) -> Callable[[], None]:
        def work() -> None:
            with budget.holding(nbytes):
                order.append(nbytes)

        return work

    first = in_thread(ask(7))
    until_waiting(budget, 1)
    second = in_thread(ask(1))
    until_waiting(budget, 2)
    assert order == []
    budget.release(5)
    first.join()
    second.join()
    assert order == [7, 1]


def test_close_sends_away_those_who_wait_and_those_who_come() -> None:
    budget = ByteBudget(3)
    budget.acquire(3)
    left: list[str] = []

    def wait() -> None:
        with pytest.raises(LaneClosed):
            budget.acquire(2)
        left.append("left")

    threads = [in_thread(wait) for _ in range(3)]
    until_waiting(budget, 3)
    budget.close()
    for thread in threads:
        thread.join()
    assert left == ["left"] * 3
    with pytest.raises(LaneClosed):
        budget.acquire(0)


def test_what_was_held_is_given_back_when_the_block_fails() -> None:
    budget = ByteBudget(5)
    with pytest.raises(ArithmeticError), budget.holding(5):
        raise ArithmeticError
    assert budget.held_nbytes == 0


def test_the_first_failure_is_kept_and_later_ones_are_its_echo() -> None:
    failure = FirstFailure()
    assert not failure
    cause = ValueError("cause")
    failure.report(cause)
    failure.report(KeyError("echo"))
    assert failure
    assert failure.error is cause


@given(st.lists(st.booleans(), max_size=20))
def test_what_passes_goes_first_and_either_kind_keeps_its_order_and_the_end_is_last(
    kinds: list[bool],
) -> None:
    waiting = PassingQueue[int]()
    waiting.put(None)
    for number, passes in enumerate(kinds):
        waiting.put(number, passes)
    taken = [waiting.get() for _ in kinds]
    assert taken == sorted(range(len(kinds)), key=lambda number: not kinds[number])
    assert not waiting.empty()
    assert waiting.get() is None
    assert waiting.empty()
