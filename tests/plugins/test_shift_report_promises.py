"""Plugin shift-report: against a report made another way, the calendar, and arguments of any kind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from fakes.callable_plugins import CallablePlugin, any_value, callable_plugin
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

hostile = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])

MOST_ROWS = 200_000
HOUR_MS = 3_600_000
BEGIN = int(datetime(2026, 2, 27, tzinfo=UTC).timestamp() * 1000)
THREE_SHIFTS = [
    {"name": "early", "start": "06:00", "end": "14:00"},
    {"name": "late", "start": "14:00", "end": "22:00"},
    {"name": "night", "start": "22:00", "end": "06:00"},
]
Row = tuple[int, float]


@pytest.fixture(scope="module")
def report() -> Iterator[CallablePlugin]:
    with callable_plugin("shift-report") as plugin:
        yield plugin


def spans(args: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    """Day, shift, begin and end of each line, from the calendar of the standard library."""
    zone = timezone(timedelta(minutes=args["timezone_offset_min"]))
    first = datetime.fromtimestamp(args["from"] / 1000, zone).date() - timedelta(days=1)
    found = []
    for number in range((args["to"] - args["from"]) // (24 * HOUR_MS) + 4):
        day = first + timedelta(days=number)
        for shift in args["shifts"]:
            begin = moment(day, shift["start"], zone)
            end = moment(day, shift["end"], zone)
            if end <= begin:
                end += timedelta(days=1)
            low = max(args["from"], int(begin.timestamp() * 1000))
            high = min(args["to"], int(end.timestamp() * 1000))
            if low < high:
                found.append((day.isoformat(), shift["name"], low, high))
    return found


def moment(day: date, text: str, zone: timezone) -> datetime:
    hours, minutes = map(int, text.split(":"))
    return datetime.combine(day, time(tzinfo=zone)) + timedelta(hours=hours, minutes=minutes)


def figures(rows: list[Row], begin: int, end: int, args: dict[str, Any]) -> list[float | None]:
    inside = [value for at, value in rows if begin <= at < end]
    exact = sum(map(Fraction, inside), Fraction(0))
    delta, resets = Fraction(0), 0
    for (_, before), (at, now) in pairwise(rows):
        if begin <= at < end:
            if now >= before:
                delta += Fraction(now) - Fraction(before)
            else:
                resets += 1
                delta += max(Fraction(now), Fraction(0))
    covered, above, weighted = 0, 0, Fraction(0)
    for number, (at, value) in enumerate(rows):
        until = at + args["hold_s"] * 1000
        if number + 1 < len(rows):
            until = min(until, rows[number + 1][0])
        held = max(0, min(until, end) - max(at, begin))
        covered += held
        weighted += Fraction(value) * held
        above += held if value > args["threshold"] else 0
    told: list[Any] = [
        min(inside, default=None),
        max(inside, default=None),
        exact / len(inside) if inside else None,
        exact if inside else None,
        inside[0] if inside else None,
        inside[-1] if inside else None,
        delta if inside else None,
        resets,
        weighted / covered if covered else None,
        Fraction(covered, HOUR_MS),
        Fraction(above, HOUR_MS),
    ]
    return [len(inside), *(None if one is None else float(one) for one in told)]


def agree(actual: list[Any], expected: list[Any]) -> bool:
    return all(
        one == other
        or (
            isinstance(one, int | float)
            and isinstance(other, int | float)
            and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6)
        )
        for one, other in zip(actual, expected, strict=True)
    )


def test_the_examples_worked_out_by_hand_come_out(report: CallablePlugin) -> None:
    assert report.broken_promises() == []


histories = st.lists(
    st.tuples(st.integers(BEGIN - 2 * 24 * HOUR_MS, BEGIN + 5 * 24 * HOUR_MS), st.floats(-1e4, 1e4)), max_size=40
).map(lambda rows: sorted(rows, key=lambda row: row[0]))
times_of_day = st.integers(0, 1439).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
any_shifts = st.lists(
    st.fixed_dictionaries(
        {"name": st.text(min_size=1, max_size=8), "start": times_of_day, "end": times_of_day | st.just("24:00")}
    ),
    min_size=1,
    max_size=5,
)


@hostile
@given(
    rows=histories,
    shifts=st.just(THREE_SHIFTS) | any_shifts,
    offset=st.sampled_from([0, 480, -570, 345, 840, -720]),
    start=st.integers(0, 24 * HOUR_MS),
    length=st.integers(1, 4 * 24 * HOUR_MS),
    hold_s=st.integers(1, 100_000),
    threshold=st.floats(-1e4, 1e4),
)
@example(  # a fall below zero is no way over a rollover that nobody asked for
    rows=[(BEGIN - HOUR_MS, -1.0), (BEGIN, -2.0)],
    shifts=THREE_SHIFTS,
    offset=0,
    start=0,
    length=HOUR_MS,
    hold_s=1,
    threshold=0.0,
)
def test_every_line_is_what_a_report_made_another_way_says(
    report: CallablePlugin,
    rows: list[Row],
    shifts: list[dict[str, str]],
    offset: int,
    start: int,
    length: int,
    hold_s: int,
    threshold: float,
) -> None:
    args: dict[str, Any] = {
        "timezone_offset_min": offset,
        "shifts": shifts,
        "from": BEGIN + start,
        "to": BEGIN + start + length,
        "hold_s": hold_s,
        "threshold": threshold,
    }

    answer = report.call(property="p", rows=[list(row) for row in rows], **args)

    expected = spans(args)
    assert [line[:2] for line in answer["rows"]] == [[day, name] for day, name, _, _ in expected]
    for line, (_, _, begin, end) in zip(answer["rows"], expected, strict=True):
        zone = timezone(timedelta(minutes=offset))
        shown = [datetime.fromisoformat(text) for text in line[2:4]]
        assert shown == [datetime.fromtimestamp(at // 1000, zone) for at in (begin, end)]
        assert shown[0].utcoffset() == timedelta(minutes=offset)
        assert agree(line[4:], figures(rows, begin, end, args))
    whole = figures(rows, args["from"], args["to"], args)
    assert agree([answer["summary"][column] for column in answer["columns"][4:]], whole)


@hostile
@given(rows=histories)
def test_shifts_that_cover_the_day_lose_no_rise_and_no_hour(report: CallablePlugin, rows: list[Row]) -> None:
    answer = report.call(
        **{"from": BEGIN, "to": BEGIN + 72 * HOUR_MS},
        property="p",
        timezone_offset_min=480,
        shifts=THREE_SHIFTS,
        threshold=0,
        rows=[list(row) for row in rows],
    )
    column = {name: [line[place] or 0 for line in answer["rows"]] for place, name in enumerate(answer["columns"])}
    for name in ("count", "sum", "delta", "resets", "covered_h", "hours_above"):
        total = answer["summary"][name] or 0
        assert math.fsum(column[name]) == pytest.approx(total, abs=1e-6)
        of_shifts = [shift[name] or 0 for shift in answer["summary"]["shifts"]]
        assert math.fsum(of_shifts) == pytest.approx(total, abs=1e-6)


@hostile
@given(moment=st.datetimes(datetime(1, 1, 5), datetime(9999, 12, 25)))  # noqa: DTZ001 - taken for UTC
@example(moment=datetime(2000, 2, 29))  # noqa: DTZ001
@example(moment=datetime(1900, 3, 1))  # noqa: DTZ001
@example(moment=datetime(1969, 12, 31, 23, 59, 59))  # noqa: DTZ001
def test_every_day_of_the_calendar_has_its_date(report: CallablePlugin, moment: datetime) -> None:
    at = (moment - datetime(1970, 1, 1)) // timedelta(milliseconds=1)  # noqa: DTZ001
    [line] = report.call(
        **{"from": at, "to": at + 1},
        property="p",
        timezone_offset_min=0,
        shifts=[{"name": "day", "start": "00:00", "end": "00:00"}],
        rows=[],
    )["rows"]
    assert line[0] == moment.date().isoformat()
    assert line[2] == moment.replace(microsecond=0, tzinfo=UTC).isoformat()


def test_a_full_history_is_reported(report: CallablePlugin) -> None:
    rows = [[BEGIN + 10_000 * number, number % 1000] for number in range(MOST_ROWS)]
    answer = report.call(
        **{"from": BEGIN, "to": BEGIN + 10_000 * MOST_ROWS},
        property="p",
        timezone_offset_min=480,
        shifts=THREE_SHIFTS,
        rows=rows,
    )
    assert answer["summary"]["count"] == MOST_ROWS
    assert answer["summary"]["sum"] == sum(value for _, value in rows)
    assert answer["summary"]["covered_h"] == pytest.approx(MOST_ROWS / 360)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"rows": [[0, 1]] * (MOST_ROWS + 1)}, "rows: has 200001 items; give at most 200000"),
        ({"rows": [[0, 1], [5, 1], [4, 1]]}, "rows: item 3 is earlier than one before it: sort rows by time"),
        ({"rows": [[0, float("nan")]]}, "rows: item 1 must end with a finite number of at most 1e100"),
        ({"rows": [[float("inf"), 1]]}, "rows: item 1 must begin with epoch milliseconds"),
        ({"rows": [[0, 1], 7]}, "rows: item 2 must be [epoch ms, value]"),
        ({"property": None}, "property: is missing: give text of 1 to 64 bytes"),
        ({"unit": 7}, "unit: must be text of 1 to 64 bytes"),
        ({"timezone_offset_min": None}, "timezone_offset_min: is missing: give minutes from -1080 to 1080"),
        ({"shifts": []}, "shifts: must hold at least one {name, start, end}"),
        ({"shifts": THREE_SHIFTS * 9}, "shifts: has 27 items; give at most 24"),
        ({"shifts": [THREE_SHIFTS[0], "late"]}, "shifts: item 2 must be {name, start, end}"),
        ({"shifts": [{"name": "a", "start": "24:00", "end": "06:00"}]}, 'must have a start from "00:00" to "23:59"'),
        ({"shifts": [{"name": "a", "start": "06:00", "end": "6:00"}]}, 'must have an end from "00:00" to "24:00"'),
        ({"to": 0}, "to: must be later than from"),
        ({"to": 2 * 366 * 24 * HOUR_MS, "shifts": THREE_SHIFTS * 8}, "to: makes more than 4096 lines"),
    ],
)
def test_a_refusal_names_the_argument(report: CallablePlugin, args: dict[str, Any], says: str) -> None:
    sound = {
        "property": "p",
        "timezone_offset_min": 0,
        "from": 0,
        "to": 24 * HOUR_MS,
        "shifts": THREE_SHIFTS,
        "rows": [],
    }
    number, text = report.refusal(**(sound | args))
    assert number == 7
    assert says in text


huge = st.sampled_from([1e100, -1e100, 1e300, 5e-324, 2**53, -(2**53), 253402300799999, -62135596800000])
numbers = huge | st.floats() | st.integers(-(2**63), 2**64 - 1)
arguments = st.fixed_dictionaries(
    {
        "property": st.just("p") | any_value,
        "timezone_offset_min": st.integers(-1080, 1080) | any_value,
        "from": st.integers(0, 10**9) | numbers,
        "to": st.integers(10**9, 10**10) | numbers,
        "shifts": st.just(THREE_SHIFTS) | any_shifts | any_value,
        "rows": st.lists(st.tuples(st.integers(0, 10**10), numbers | any_value), max_size=5).map(
            lambda rows: sorted(rows, key=lambda row: row[0])
        )
        | st.lists(st.tuples(numbers, numbers), max_size=3)
        | any_value,
    },
    optional={"hold_s": numbers, "threshold": numbers, "rollover_at": numbers, "unit": any_value},
)


@hostile
@given(args=arguments)
def test_any_arguments_give_finite_figures_or_a_code(report: CallablePlugin, args: dict[str, Any]) -> None:
    outcome = report.outcome(args)
    if isinstance(outcome, int):
        assert outcome == 7
    else:
        for line in outcome["rows"]:
            assert len(line) == len(outcome["columns"])
            assert all(math.isfinite(one) for one in line if isinstance(one, float))


@hostile
@given(packed=st.binary(max_size=200))
def test_any_bytes_for_arguments_give_an_answer_or_a_code(report: CallablePlugin, packed: bytes) -> None:
    report.outcome_of_bytes(packed)
