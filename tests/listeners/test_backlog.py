"""The backlog pauses senders at its bounds, loses nothing, and lets them go on."""

from __future__ import annotations

from fakes.traffic import FakeConnection
from hypothesis import given
from hypothesis import strategies as st

from gateway.listeners.backlog import Backlog, BacklogConfig


def frames(count: int, size: int = 1) -> list[bytes]:
    return [b"x" * size] * count


def test_a_connection_over_its_own_bound_is_paused_and_its_neighbour_is_not() -> None:
    backlog = Backlog(BacklogConfig(connection_frames=4))
    talker, neighbour = FakeConnection(), FakeConnection()
    backlog.put(talker, frames(4))
    backlog.put(neighbour, frames(1))
    assert talker.holds
    assert not neighbour.holds


def test_a_few_huge_frames_pause_a_connection_as_many_small_ones_do() -> None:
    backlog = Backlog(BacklogConfig(connection_bytes=1000))
    talker = FakeConnection()
    backlog.put(talker, frames(2, 600))
    assert talker.holds


def test_a_full_backlog_pauses_whoever_sends_and_releases_all_when_half_empty() -> None:
    backlog = Backlog(BacklogConfig(frames=10, connection_frames=100))
    first, second = FakeConnection(), FakeConnection()
    backlog.put(first, frames(9))
    backlog.put(second, frames(1))
    assert second.holds
    assert not first.holds
    backlog.take(100)
    backlog.settle(first, 4, 4)
    backlog.relax()
    assert second.holds, "six of ten are still on their way"
    backlog.settle(first, 5, 5)
    backlog.relax()
    assert not second.holds


def test_products_take_turns() -> None:
    backlog = Backlog(BacklogConfig())
    a, b = FakeConnection("a"), FakeConnection("b")
    backlog.put(a, frames(6))
    backlog.put(b, frames(1))
    seen = [backlog.take(2)[0].connection.product_id for _ in range(4)]
    assert seen == ["a", "b", "a", "a"]


def test_what_is_put_back_comes_first_again() -> None:
    backlog = Backlog(BacklogConfig())
    connection = FakeConnection()
    backlog.put(connection, [b"1", b"2"])
    backlog.put(connection, [b"3"])
    runs = backlog.take(10)
    backlog.put(connection, [b"4"])
    backlog.put_back(runs)
    assert [frame for run in backlog.take(10) for frame in run.frames] == [b"1", b"2", b"3", b"4"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=40), st.integers(1, 7))
def test_every_frame_comes_out_once_in_order_and_everyone_is_released(puts: list[tuple[int, int]], most: int) -> None:
    backlog = Backlog(BacklogConfig(connection_frames=5, frames=12))
    connections = [FakeConnection(f"p{number % 2}") for number in range(4)]
    sent: dict[int, list[bytes]] = {number: [] for number in range(4)}
    got: dict[int, list[bytes]] = {number: [] for number in range(4)}
    for serial, (number, count) in enumerate(puts):
        batch = [f"{serial}.{index}".encode() for index in range(count)]
        sent[number].extend(batch)
        backlog.put(connections[number], batch)
    while backlog.queued:
        runs = backlog.take(most)
        assert sum(len(run.frames) for run in runs) <= most
        for connection, taken in runs:
            got[connections.index(connection)].extend(taken)
            backlog.settle(connection, len(taken), sum(map(len, taken)))
        backlog.relax()
    assert got == sent
    assert (backlog.frames, backlog.bytes) == (0, 0)
    assert not any(connection.holds for connection in connections)
    assert not any(backlog.has(connection) for connection in connections)
