"""The read side of history, over what the journal wrote."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.commits import a_commit, a_message, outcome
from fakes.rooms import OTHER, SCOPE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import NotFound, Rejected
from gateway.core.flow import Commit, DeadLetter, Event, Message, NewDevice, Quality
from gateway.storage.database import Database
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.writer import JournalWriter
from gateway.things.ports import Aggregate, PageRequest, TimeRange

pytestmark = pytest.mark.usefixtures("stored_device")

OPEN = TimeRange()
ONE = PageRequest()


@pytest.fixture
def history(database: Database) -> SqlHistoryRepository:
    return SqlHistoryRepository(database)


@pytest.fixture
async def keep(journal: JournalWriter) -> Any:
    async def keep(*messages: Message, **fields: Any) -> None:
        assert await outcome(journal, a_commit(*messages, **fields)) is None

    return keep


async def test_every_message_is_a_point_of_each_of_its_properties(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(a_message(1, a=1, b="x"), a_message(2, a=2), a_message(3, b=None))
    page = await history.points(SCOPE, "d1", "a", OPEN, ONE)
    assert ([(p.observed_at_ms, p.received_at_ms, p.value) for p in page.items], page.total) == (
        [(1, 6, 1), (2, 7, 2)],
        2,
    )
    page = await history.points(SCOPE, "d1", "b", OPEN, ONE)
    assert [point.value for point in page.items] == ["x", None]


async def test_values_keep_their_type(history: SqlHistoryRepository, keep: Any) -> None:
    values = [
        True,
        False,
        1,
        1.0,
        -0.5,
        1e300,
        2**53 + 1,
        "1",
        "",
        'a"b\\c\n',
        "終端",
        [],
        [1, [None]],
        {"k": {"x": 1}},
    ]
    await keep(*(a_message(at, v=value) for at, value in enumerate(values)))
    read = [point.value for point in (await history.points(SCOPE, "d1", "v", OPEN, ONE)).items]
    assert read == values
    assert [type(value) for value in read] == [type(value) for value in values]


async def test_equal_observation_times_are_apart_by_sequence(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(*(a_message(7, v=number) for number in range(10)))
    seen: list[int] = []
    for number in range(1, 5):
        page = await history.points(SCOPE, "d1", "v", OPEN, PageRequest(number, 3))
        assert page.total == 10
        seen += [point.value for point in page.items]
    assert seen == list(range(10))
    backwards = await history.points(SCOPE, "d1", "v", OPEN, PageRequest(1, 3, "-observed_at"))
    assert [point.value for point in backwards.items] == [9, 8, 7]


async def test_late_points_are_read_in_the_order_of_observation(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(a_message(5, v="second"))
    await keep(a_message(1, v="first"), a_message(-9, v="before 1970"))
    page = await history.points(SCOPE, "d1", "v", OPEN, ONE)
    assert [point.value for point in page.items] == ["before 1970", "first", "second"]


@pytest.mark.parametrize(
    ("span", "values"),
    [
        (TimeRange(2, 4), [2, 3]),
        (TimeRange(None, 2), [1]),
        (TimeRange(4, None), [4]),
        (TimeRange(3, 3), []),
        (TimeRange(4, 2), []),
        (TimeRange(-(2**70), 2**70), [1, 2, 3, 4]),
    ],
)
async def test_from_is_inclusive_and_to_exclusive(
    history: SqlHistoryRepository, keep: Any, span: TimeRange, values: list[int]
) -> None:
    await keep(*(a_message(at, v=at) for at in (1, 2, 3, 4)))
    page = await history.points(SCOPE, "d1", "v", span, ONE)
    assert ([point.value for point in page.items], page.total) == (values, len(values))


async def test_each_point_has_its_own_quality(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(a_message(1, 1, {"a": Quality.OUT_OF_RANGE}, a=1, b=2))
    (a,) = (await history.points(SCOPE, "d1", "a", OPEN, ONE)).items
    (b,) = (await history.points(SCOPE, "d1", "b", OPEN, ONE)).items
    assert (a.quality, b.quality) == (Quality.OUT_OF_RANGE, Quality.GOOD)


async def test_a_property_without_points_is_an_empty_page(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(a_message(v=1))
    page = await history.points(SCOPE, "d1", "never_reported", OPEN, PageRequest(3, 20))
    assert (page.items, page.total, page.page, page.limit) == ([], 0, 3, 20)
    assert (await history.aggregate(SCOPE, "d1", "never_reported", OPEN, "avg", 1000, ONE)).total == 0


@pytest.mark.parametrize("name", ['"', 'v"', '$."v"', "v' OR 1=1 --", "", "v\n", "[0]", "é", "v" * 65])
async def test_a_name_that_no_property_can_have_finds_nothing(
    history: SqlHistoryRepository, keep: Any, name: str
) -> None:
    await keep(a_message(v=1))
    assert (await history.points(SCOPE, "d1", name, OPEN, ONE)).total == 0
    assert (await history.aggregate(SCOPE, "d1", name, OPEN, "count", 1, ONE)).total == 0


async def test_names_with_dots_and_colons_are_plain_names(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(a_message(**{"a.b": 1, "a:b": 2, "a-b": 3, "a": {"b": 4}}))
    for name, value in (("a.b", 1), ("a:b", 2), ("a-b", 3)):
        (point,) = (await history.points(SCOPE, "d1", name, OPEN, ONE)).items
        assert point.value == value


@pytest.mark.parametrize("device", ["nothing", "' OR 1=1 --", ""])
async def test_an_unknown_device_is_not_found(history: SqlHistoryRepository, keep: Any, device: str) -> None:
    await keep(a_message(v=1))
    with pytest.raises(NotFound):
        await history.points(SCOPE, device, "v", OPEN, ONE)
    with pytest.raises(NotFound):
        await history.aggregate(SCOPE, device, "v", OPEN, "avg", 1000, ONE)
    with pytest.raises(NotFound):
        await history.latest(SCOPE, device)


async def test_another_tenant_sees_none_of_it(history: SqlHistoryRepository, keep: Any) -> None:
    letter = DeadLetter("default", "p", "plug", "checksum", b"x", 1)
    await keep(a_message(v=1), events=[Event("default", "t", 1, "d1")], dead_letters=[letter])
    with pytest.raises(NotFound):
        await history.points(OTHER, "d1", "v", OPEN, ONE)
    assert (await history.events(OTHER, None, 0, ONE)).total == 0
    assert (await history.events(OTHER, "d1", 0, ONE)).total == 0
    assert (await history.dead_letters(OTHER, ONE)).total == 0


async def test_points_of_one_device_are_not_those_of_another(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(a_message(1, 1, v=1), a_message(1, 2, v=2), devices=[NewDevice(2, "default", "p", "d2", 1)])
    assert [p.value for p in (await history.points(SCOPE, "d2", "v", OPEN, ONE)).items] == [2]


@pytest.mark.parametrize("sort", ["value", "seq", "observed_at_ms; DROP TABLE message"])
async def test_points_sort_by_observation_only(history: SqlHistoryRepository, sort: str) -> None:
    with pytest.raises(Rejected):
        await history.points(SCOPE, "d1", "v", OPEN, PageRequest(sort=sort))


async def test_latest_is_sorted_by_name_and_empty_before_the_first_message(
    history: SqlHistoryRepository, keep: Any
) -> None:
    assert await history.latest(SCOPE, "d1") == []
    await keep(a_message(1, b=1, a=[2]))
    first, second = await history.latest(SCOPE, "d1")
    assert (first.property, first.value, first.quality) == ("a", [2], Quality.GOOD)
    assert (second.property, second.observed_at_ms, second.received_at_ms) == ("b", 1, 6)


# Aggregates.


async def aggregated(history: SqlHistoryRepository, how: Aggregate, interval_ms: int = 10) -> list[tuple[int, Any]]:
    page = await history.aggregate(SCOPE, "d1", "v", OPEN, how, interval_ms, PageRequest(limit=1000))
    assert page.total == len(page.items)
    return [(bucket.from_ms, bucket.value) for bucket in page.items]


@pytest.mark.parametrize(
    ("how", "values"),
    [
        ("avg", [(0, 2), (10, 5), (30, -1.5)]),
        ("min", [(0, 1), (10, 5), (30, -1.5)]),
        ("max", [(0, 3), (10, 5), (30, -1.5)]),
        ("sum", [(0, 6), (10, 5), (30, -1.5)]),
        ("count", [(0, 3), (10, 1), (30, 1)]),
        ("first", [(0, 2), (10, 5), (30, -1.5)]),
        ("last", [(0, 3), (10, 5), (30, -1.5)]),
    ],
)
async def test_each_aggregate_gives_one_value_per_interval_that_has_points(
    history: SqlHistoryRepository, keep: Any, how: Aggregate, values: list[tuple[int, Any]]
) -> None:
    # Stored out of order: the third is the first by observation.
    await keep(a_message(5, v=1), a_message(9, v=3), a_message(0, v=2), a_message(10, v=5), a_message(39, v=-1.5))
    assert await aggregated(history, how) == values


@pytest.mark.parametrize(("how", "value"), [("first", 1), ("last", 3)])
async def test_the_edges_of_an_interval_with_one_instant_go_by_sequence(
    history: SqlHistoryRepository, keep: Any, how: Aggregate, value: int
) -> None:
    await keep(a_message(5, v=1), a_message(5, v=2), a_message(5, v=3))
    assert await aggregated(history, how) == [(0, value)]


async def test_bad_points_count_and_do_nothing_else(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(
        a_message(1, v=10),
        a_message(2, 1, {"v": Quality.OUT_OF_RANGE}, v=20),
        a_message(3, 1, {"v": Quality.BAD_TYPE}, v="oops"),
        a_message(4, 1, {"v": Quality.UNKNOWN_PROPERTY}, v=1000),
        a_message(0, 1, {"v": Quality.BAD_TYPE}, v=-1000),
        a_message(5, v=None),
        a_message(11, 1, {"v": Quality.BAD_TYPE}, v=7),
    )
    assert await aggregated(history, "count") == [(0, 6), (10, 1)]
    for how, value in (("avg", 15), ("min", 10), ("max", 20), ("sum", 30), ("first", 10), ("last", 20)):
        assert await aggregated(history, how) == [(0, value)]  # type: ignore[arg-type]  # an Aggregate each


async def test_texts_and_flags_have_edges_and_a_count_but_no_mean(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(a_message(1, v="open"), a_message(2, v=True))
    assert await aggregated(history, "avg") == []
    assert await aggregated(history, "first") == [(0, "open")]
    assert await aggregated(history, "last") == [(0, True)]
    assert await aggregated(history, "count") == [(0, 2)]


async def test_intervals_start_at_multiples_before_1970_too(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(*(a_message(at, v=1) for at in (-11, -10, -1, 0, 9)))
    assert await aggregated(history, "count") == [(-20, 1), (-10, 2), (0, 2)]


async def test_sums_of_huge_numbers_do_not_fail(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(a_message(1, v=2**63 - 1), a_message(2, v=2**63 - 1), a_message(11, v=1e308), a_message(12, v=1e308))
    assert await aggregated(history, "sum") == [(0, 2.0**64), (10, None)]


async def test_aggregates_are_paged_and_bounded_by_time(history: SqlHistoryRepository, keep: Any) -> None:
    await keep(*(a_message(at * 10, v=at) for at in range(10)))
    span = TimeRange(20, 80)
    page = await history.aggregate(SCOPE, "d1", "v", span, "sum", 10, PageRequest(2, 4))
    assert ([bucket.from_ms for bucket in page.items], page.total) == ([60, 70], 6)
    beyond = await history.aggregate(SCOPE, "d1", "v", span, "sum", 10, PageRequest(9, 4))
    assert (beyond.items, beyond.total) == ([], 6)
    with pytest.raises(Rejected):
        await history.aggregate(SCOPE, "d1", "v", span, "sum", 10, PageRequest(0, 4))


@pytest.mark.parametrize("interval", [0, -1, 2**63])
async def test_an_interval_that_cannot_be_is_rejected(history: SqlHistoryRepository, interval: int) -> None:
    with pytest.raises(Rejected, match="interval"):
        await history.aggregate(SCOPE, "d1", "v", OPEN, "avg", interval, ONE)


# Events and dead letters.


async def test_events_follow_a_position_by_type_and_device(history: SqlHistoryRepository, keep: Any) -> None:
    kinds = ["device.online", "alarm.raised", "device.offline", "deviceXonline", "device%"]
    events = [Event("default", kind, at, "d1" if at % 2 else None, {"n": at}) for at, kind in enumerate(kinds)]
    await keep(events=events)

    async def seqs(after: int = 0, device: str | None = None, sort: str = "", types: tuple[str, ...] = ()) -> list[int]:
        page = await history.events(SCOPE, device, after, PageRequest(sort=sort), types)
        assert page.total == len(page.items)
        return [event.seq for event in page.items]

    assert await seqs() == [1, 2, 3, 4, 5]
    assert await seqs(after=3) == [4, 5]
    assert await seqs(after=2**70) == []
    assert await seqs(device="d1") == [2, 4]
    assert await seqs(sort="-seq", after=1) == [5, 4, 3, 2]
    assert await seqs(types=("device.online",)) == [1]
    assert await seqs(types=("device.",)) == [1, 3]
    assert await seqs(types=("device%",)) == [5]
    assert await seqs(types=("alarm.", "device.offline")) == [2, 3]
    assert (await history.events(SCOPE, None, 0, PageRequest(2, 2))).items == events[2:4]


async def test_dead_letters_come_newest_first(history: SqlHistoryRepository, journal: JournalWriter) -> None:
    letters = [DeadLetter("default", "p", "plug", "why", bytes(range(256)), at, "d1") for at in range(3)]
    assert await outcome(journal, Commit(dead_letters=letters)) is None
    page = await history.dead_letters(SCOPE, PageRequest(1, 2))
    assert (page.items, page.total) == ([letters[2], letters[1]], 3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-5, 5)), min_size=1, max_size=30), st.integers(1, 40))
async def test_aggregates_agree_with_arithmetic(
    history: SqlHistoryRepository, keep: Any, database: Database, points: list[tuple[int, int]], interval: int
) -> None:
    name = f"v{test_aggregates_agree_with_arithmetic.runs}"  # type: ignore[attr-defined]  # a property for each example
    test_aggregates_agree_with_arithmetic.runs += 1  # type: ignore[attr-defined]  # as above
    await keep(*(a_message(at, **{name: value}) for at, value in points))
    buckets: dict[int, list[int]] = {}
    for at, value in sorted(points, key=lambda point: point[0]):
        buckets.setdefault(at // interval * interval, []).append(value)
    expected = {
        "avg": lambda values: pytest.approx(sum(values) / len(values)),
        "min": min,
        "max": max,
        "sum": sum,
        "count": len,
        "first": lambda values: values[0],
        "last": lambda values: values[-1],
    }
    for how, of in expected.items():
        page = await history.aggregate(SCOPE, "d1", name, OPEN, how, interval, PageRequest(limit=1000))  # type: ignore[arg-type]  # an Aggregate each
        assert {bucket.from_ms: bucket.value for bucket in page.items} == {at: of(vs) for at, vs in buckets.items()}


test_aggregates_agree_with_arithmetic.runs = 0  # type: ignore[attr-defined]  # counts the examples
