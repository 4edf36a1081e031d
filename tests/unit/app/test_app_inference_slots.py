"""The queue for the model: who is next, handing over, leaving, and that nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.inference_slots import MAX_OVERTAKEN, InferenceSlots, TimedSlots
from serving.requests.clients import Connection, Priority, RequestContext, in_context
from serving.requests.errors import ClientGoneError

SECONDS = 30
CLICK, BATCH, BACKGROUND = Priority


class Crowd:
    """Requests in threads of their own; all that they do is written down in one list.

    Args:
        count: of the slots.
    """

    def __init__(self, count: int = 1) -> None:
        self.slots, self.seen = InferenceSlots(count), []
        self._threads: list[threading.Thread] = []

    def request(
        self,
        name: str,
        priority: Priority = CLICK,
        client: str | None = None,
        work: Callable[[Callable[[int], None]], object] = lambda yield_slot: None,
        connection: Connection | None = None,
    ) -> None:
        """Send a request; return once it has a slot or waits for one."""
        there = threading.Event()

        def run() -> None:
            with in_context(RequestContext(client or name, connection=connection, priority=priority)):
                try:
                    with self.slots.hold() as yield_slot:
                        self.seen.append(name)
                        there.set()
                        work(yield_slot)
                except ClientGoneError:
                    self.seen.append(f"{name} gone")

        before = self.slots.waiting
        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()
        until = time.monotonic() + SECONDS
        while not there.wait(0.001) and self.slots.waiting == before:
            assert time.monotonic() < until

    def end(self) -> list[str]:
        """Wait for all, and return what was written down."""
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        assert self.slots.waiting == 0
        return self.seen


def test_people_before_batches_before_background_and_the_first_of_each_first() -> None:
    crowd, go_on = Crowd(), threading.Event()
    crowd.request("first", BACKGROUND, work=lambda _: go_on.wait(SECONDS))
    for name, priority in (
        ("scorer", BACKGROUND),
        ("batch 1", BATCH),
        ("click 1", CLICK),
        ("prefetch", BACKGROUND),
        ("click 2", CLICK),
        ("batch 2", BATCH),
        ("click 3", CLICK),
    ):
        crowd.request(name, priority)
    go_on.set()
    assert crowd.end() == ["first", "click 1", "click 2", "click 3", "batch 1", "batch 2", "scorer", "prefetch"]


def test_two_long_runs_give_a_click_its_turn_after_one_slice() -> None:
    crowd = Crowd(2)
    go_on = {name: threading.Semaphore(0) for name in ("one", "two")}

    def long(name: str) -> Callable:
        def work(yield_slot: Callable[[int], None]) -> None:
            for done in range(3):
                assert go_on[name].acquire(timeout=SECONDS)
                crowd.seen.append(f"{name} slice {done}")
                yield_slot(done + 1)

        return work

    crowd.request("one", work=long("one"))
    crowd.request("two", work=long("two"))
    is_clicked, click_ends = threading.Event(), threading.Event()
    crowd.request("click", work=lambda _: (is_clicked.set(), click_ends.wait(SECONDS)))
    assert not is_clicked.is_set()
    go_on["one"].release(3)
    assert is_clicked.wait(SECONDS)  # although the second run has not even come to the end of its slice
    while crowd.slots.waiting == 0:
        time.sleep(0.001)
    assert crowd.seen == ["one", "two", "one slice 0", "click"]
    click_ends.set()
    go_on["two"].release(3)
    seen = crowd.end()
    assert [each for each in seen if each.startswith("one s")] == [f"one slice {n}" for n in range(3)]


def test_a_slot_is_kept_where_only_less_urgent_requests_wait() -> None:
    crowd, go_on = Crowd(), threading.Event()

    def batch(yield_slot: Callable[[int], None]) -> None:
        assert go_on.wait(SECONDS)
        for done in range(5):
            yield_slot(done)
            crowd.seen.append("slice")

    crowd.request("batch", BATCH, work=batch)
    crowd.request("scorer", BACKGROUND)
    go_on.set()
    assert crowd.end() == ["batch", *["slice"] * 5, "scorer"]


def test_a_client_with_slots_stands_behind_one_without() -> None:
    crowd, ends = Crowd(2), [threading.Event(), threading.Event()]
    crowd.request("a1", client="a", work=lambda _: ends[0].wait(SECONDS))
    crowd.request("c1", client="c", work=lambda _: ends[1].wait(SECONDS))
    crowd.request("a2", client="a")
    crowd.request("a3", client="a")
    crowd.request("b1", client="b")
    ends[1].set()
    while crowd.slots.waiting:
        time.sleep(0.001)
    ends[0].set()
    assert crowd.end() == ["a1", "c1", "b1", "a2", "a3"]


@pytest.mark.parametrize("while_it", ["waits", "has given its slot away", "has not begun"])
def test_a_closed_connection_leaves_the_queue_at_once(while_it: str) -> None:
    crowd, ends, connection = Crowd(), threading.Event(), Connection()
    turn = threading.Event()
    if while_it == "has given its slot away":
        crowd.request("gone", connection=connection, work=lambda give: (turn.wait(SECONDS), give(1)))
    elif while_it == "has not begun":
        connection.close()
    crowd.request("other", work=lambda _: ends.wait(SECONDS))
    turn.set()
    if while_it == "waits":
        crowd.request("gone", connection=connection)
    elif while_it == "has not begun":
        with (
            in_context(RequestContext("gone", connection=connection)),
            pytest.raises(ClientGoneError),
            crowd.slots.hold(),
        ):
            pass
        crowd.seen.append("gone gone")
    else:
        while "other" not in crowd.seen:
            time.sleep(0.001)
    connection.close()
    until = time.monotonic() + SECONDS
    while crowd.slots.waiting:
        assert time.monotonic() < until
        time.sleep(0.001)
    crowd.request("next")
    ends.set()
    seen = crowd.end()
    assert seen.index("gone gone") < seen.index("next")
    with crowd.slots.hold():  # none was lost
        pass


def test_background_work_goes_on_under_a_flood_of_clicks() -> None:
    crowd, is_done, rounds = Crowd(), threading.Event(), []

    def flood(yield_slot: Callable[[int], None]) -> None:
        while not is_done.is_set() and len(rounds) < 10 * MAX_OVERTAKEN:
            rounds.append(1)
            yield_slot(1)

    is_ready = threading.Event()
    crowd.request("first", work=lambda _: is_ready.wait(SECONDS))
    crowd.request("scorer", BACKGROUND, work=lambda _: is_done.set())
    crowd.request("click 1", work=flood)
    crowd.request("click 2", work=flood)
    is_ready.set()
    crowd.end()
    assert is_done.is_set()
    assert len(rounds) <= MAX_OVERTAKEN + 2


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 3),
    requests=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(list(Priority)), st.integers(0, 12)), min_size=1, max_size=10
    ),
)
def test_nobody_waits_for_ever_and_no_slot_is_lost_or_made(count: int, requests: list) -> None:
    crowd, holding, lock = Crowd(count), [], threading.Lock()
    too_many = []

    def work(slices: int) -> Callable:
        def run(yield_slot: Callable[[int], None]) -> None:
            for done in range(slices + 1):
                with lock:
                    holding.append(done)
                    too_many.extend([1] * (len(holding) > count))
                with lock:
                    holding.pop()
                yield_slot(done)

        return run

    for n, (client, priority, slices) in enumerate(requests):
        crowd.request(str(n), priority, client, work(slices))
    assert sorted(crowd.end(), key=int) == [str(n) for n in range(len(requests))]
    assert not too_many
    is_free, enough = threading.Semaphore(0), threading.Event()
    again = Crowd(count)
    again.slots = crowd.slots
    for n in range(count):  # all of them are free again
        again.request(str(n), work=lambda _: (is_free.release(), enough.wait(SECONDS)))
    for _ in range(count):
        assert is_free.acquire(timeout=SECONDS)
    enough.set()
    again.end()


def test_the_time_of_a_request_is_that_with_a_slot() -> None:
    slots = InferenceSlots(1)
    timed, holds, waits = TimedSlots(slots), threading.Event(), 0.2

    def hold() -> None:
        with in_context(RequestContext("other", priority=CLICK)), slots.hold():
            holds.set()
            time.sleep(waits)

    other = threading.Thread(target=hold)
    other.start()
    assert holds.wait(SECONDS)
    begin = time.perf_counter()
    with in_context(RequestContext("one", priority=CLICK)), timed.hold():
        assert timed.seconds == 0
    took = time.perf_counter() - begin
    other.join()
    assert 0 < timed.seconds < took
    once = timed.seconds
    with in_context(RequestContext("one", priority=CLICK)), timed.hold() as yield_slot:
        yield_slot(1)
    assert timed.seconds > once
