"""Plugin kalman: against the textbook's equations in exact fractions, its bounds, and its state over a reload."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from fakes.callable_plugins import CallablePlugin, any_value, callable_plugin
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

hostile = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])

MOST_TRACKS, MOST_ROWS = 10_000, 65_536
NOISE = {"process_noise": 0.5, "measurement_noise": 2.0}

values = st.floats(-1e6, 1e6)
times = st.none() | st.integers(0, 10**7)
variances = st.floats(1e-6, 1e6)


@pytest.fixture(scope="module")
def shared() -> Iterator[CallablePlugin]:
    with callable_plugin("kalman") as plugin:
        yield plugin


@pytest.fixture
def kalman(shared: CallablePlugin) -> CallablePlugin:
    """The one instance, without filters."""
    shared.caller.program.load_state(msgspec.msgpack.encode({"version": 1, "tracks": []}), 1.0)
    return shared


class Textbook:
    """Predict, then update: x and P in fractions, with the covariance in its plain form (1 - K) P."""

    def __init__(self, process: float, measurement: float) -> None:
        self.q, self.r = Fraction(process), Fraction(measurement)
        self.x: Fraction | None = None
        self.p = Fraction(0)
        self.at: int | None = None

    def update(self, at: int | None, value: float) -> tuple[float, float, float, float]:
        z, innovation, gain = Fraction(value), Fraction(0), Fraction(1)
        if self.x is None:
            self.x, self.p = z, self.r
        else:
            wandered = Fraction(1) if at is None or self.at is None else Fraction(max(0, at - self.at), 1000)
            self.p += self.q * wandered
            gain = self.p / (self.p + self.r)
            innovation = z - self.x
            self.x += gain * innovation
            self.p *= 1 - gain
        if at is not None:
            self.at = at if self.at is None else max(self.at, at)
        return float(self.x), float(self.p), float(innovation), float(gain)


def shown(answer: dict[str, Any]) -> tuple[float, float, float, float]:
    return answer["estimate"], answer["variance"], answer["innovation"], answer["gain"]


def close(actual: tuple[float, ...], expected: tuple[float, ...], scale: float) -> bool:
    return all(
        math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9 * scale)
        for one, other in zip(actual, expected, strict=True)
    )


def test_the_examples_worked_out_by_hand_come_out(kalman: CallablePlugin) -> None:
    assert kalman.broken_promises() == []


@hostile
@given(readings=st.lists(st.tuples(times, values), min_size=1, max_size=12), process=variances, measurement=variances)
def test_every_step_is_what_the_textbook_makes_of_it(
    kalman: CallablePlugin, readings: list[tuple[int | None, float]], process: float, measurement: float
) -> None:
    noise = {"process_noise": process, "measurement_noise": measurement}
    book = Textbook(process, measurement)
    scale = 1 + max(abs(value) for _, value in readings)

    kalman.call(key="k", reset=True)
    for at, value in readings:
        expected = book.update(at, value)
        assert close(shown(kalman.call(key="k", value=value, at=at, **noise)), expected, scale)

    rows = kalman.call(rows=[list(reading) for reading in readings], **noise)
    assert close(shown(rows), expected, scale)
    assert len(rows["estimates"]) == len(readings)
    assert rows["estimates"][-1] == rows["estimate"]


def test_a_constant_under_noise_is_believed_ever_more(kalman: CallablePlugin) -> None:
    wobble = [20 + (1 if i % 2 else -1) for i in range(400)]
    answers = [kalman.call(key="k", value=value, process_noise=0, measurement_noise=1) for value in wobble]
    assert all(later["variance"] < earlier["variance"] for earlier, later in pairwise(answers))
    assert answers[-1]["estimate"] == pytest.approx(20, abs=0.01)


def test_rows_with_a_key_go_on_where_it_was(kalman: CallablePlugin) -> None:
    for value in (1.0, 2.0, 3.0):
        singly = kalman.call(key="one by one", value=value, **NOISE)
    kalman.call(key="together", value=1.0, **NOISE)
    together = kalman.call(key="together", rows=[[None, 2.0], [None, 3.0]], **NOISE)
    assert shown(singly) == shown(together)


def test_a_refused_call_leaves_the_filter_as_it_was(kalman: CallablePlugin) -> None:
    kalman.call(key="k", value=5.0, **NOISE)
    before = kalman.caller.program.save_state(1.0)

    number, text = kalman.refusal(key="k", rows=[[None, 6.0], [None, float("nan")]], **NOISE)
    assert (number, "rows: item 2 must be" in text) == (7, True)
    for bad in (float("nan"), float("inf"), 1e101, "6", None):
        assert kalman.refusal(key="k", value=bad, **NOISE)[0] == 7

    assert kalman.caller.program.save_state(1.0) == before


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"key": None}, 'key: is missing: give text of 1 to 128 bytes, such as "device/property"'),
        ({"key": "k" * 129}, "key: must be text of 1 to 128 bytes"),
        ({"key": b"k"}, "key: must be text of 1 to 128 bytes"),
        ({"measurement_noise": 0}, "measurement_noise: must be a variance above 0"),
        ({"process_noise": None}, "process_noise: is missing: give a variance of 0 or more"),
        ({"at": "now"}, "at: must be epoch milliseconds"),
        ({"reset": "yes"}, "reset: must be true or false"),
        ({"rows": [[0, 1]] * (MOST_ROWS + 1)}, "rows: has 65537 items; give at most 65536"),
    ],
)
def test_a_refusal_names_the_argument(kalman: CallablePlugin, args: dict[str, Any], says: str) -> None:
    number, text = kalman.refusal(**({"key": "k", "value": 1.0} | NOISE | args))
    assert number == 7
    assert says in text


# Bounds and state.


def test_the_filter_not_used_for_longest_makes_room(kalman: CallablePlugin) -> None:
    for number in range(MOST_TRACKS):
        kalman.call(key=f"device {number}", value=1.0, **NOISE)
    kalman.call(key="device 0", value=1.0, **NOISE)  # now device 1 waits longest

    kalman.call(key="one more", value=1.0, **NOISE)

    assert kalman.call(key="device 1", reset=True) == {"forgotten": False}
    assert kalman.call(key="device 0", reset=True) == {"forgotten": True}
    assert kalman.call(key="device 2", reset=True) == {"forgotten": True}
    assert len(tracks(kalman.caller.program.save_state(1.0))) == MOST_TRACKS - 2


def tracks(state: bytes | None) -> list[list[Any]]:
    assert state is not None
    saved = msgspec.msgpack.decode(state)
    assert saved["version"] == 1
    return list(saved["tracks"])


keys = st.sampled_from([f"k{number}" for number in range(6)])


@hostile
@given(steps=st.lists(st.tuples(keys, st.booleans()), max_size=40))
def test_filters_are_kept_in_the_order_of_their_use(kalman: CallablePlugin, steps: list[tuple[str, bool]]) -> None:
    kalman.caller.program.load_state(msgspec.msgpack.encode({"version": 1, "tracks": []}), 1.0)
    expected: list[str] = []
    for key, forgets in steps:
        known = key in expected
        if known:
            expected.remove(key)
        if forgets:
            assert kalman.call(key=key, reset=True) == {"forgotten": known}
        else:
            expected.append(key)
            assert (kalman.call(key=key, value=1.0, **NOISE)["gain"] == 1) is not known
    assert [track[0] for track in tracks(kalman.caller.program.save_state(1.0))] == expected


def test_a_reload_goes_on_where_the_old_instance_was(kalman: CallablePlugin) -> None:
    for number, at in enumerate([1000, None, 3000]):
        kalman.call(key=f"k{number}", value=float(number), at=at, **NOISE)
    state = kalman.caller.program.save_state(1.0)
    assert state is not None
    with callable_plugin("kalman") as after:
        assert after.caller.program.load_state(state, 1.0)
        assert after.caller.program.save_state(1.0) == state
        for number in range(3):
            again = {"key": f"k{number}", "value": 9.0, "at": 4000, **NOISE}
            assert after.call(**again) == kalman.call(**again)


def test_a_full_table_is_carried_over(kalman: CallablePlugin) -> None:
    longest = [f"{number:05}".ljust(128, "x") for number in range(MOST_TRACKS)]
    for key in longest:
        kalman.call(key=key, value=1.0, at=1_700_000_000_000, **NOISE)
    state = kalman.caller.program.save_state(1.0)
    assert state is not None
    assert kalman.caller.program.load_state(state, 1.0)
    assert [track[0] for track in tracks(kalman.caller.program.save_state(1.0))] == longest


SOUND = {"version": 1, "tracks": [["k", 1.0, 2.0, None]]}


@pytest.mark.parametrize(
    "saved",
    [
        {"version": 2, "tracks": []},
        {"tracks": []},
        {"version": 1},
        {"version": 1, "tracks": [["k", 1.0, 2.0]]},
        {"version": 1, "tracks": [["", 1.0, 2.0, None]]},
        {"version": 1, "tracks": [["k", float("nan"), 2.0, None]]},
        {"version": 1, "tracks": [["k", 1.0, -1.0, None]]},
        {"version": 1, "tracks": [["k", 1.0, 2.0, float("inf")]]},
        {"version": 1, "tracks": [["sound", 1.0, 2.0, None], ["k"]]},
        [],
    ],
)
def test_a_state_of_another_format_is_refused_and_filters_start_anew(kalman: CallablePlugin, saved: Any) -> None:
    assert kalman.caller.program.load_state(msgspec.msgpack.encode(SOUND), 1.0)
    assert not kalman.caller.program.load_state(msgspec.msgpack.encode(saved), 1.0)
    assert tracks(kalman.caller.program.save_state(1.0)) == []


@hostile
@given(state=st.binary(max_size=100) | any_value.map(msgspec.msgpack.encode))
@example(b"\x82\xa7version\x01\xa6tracks\xdd\xff\xff\xff\xff")
def test_any_saved_state_is_taken_or_refused(kalman: CallablePlugin, state: bytes) -> None:
    kalman.caller.program.load_state(state, 1.0)
    assert kalman.caller.program.stats.traps == kalman.caller.program.stats.kills == 0
    assert kalman.call(key="k", value=1.0, reset=True, **NOISE)["gain"] == 1


huge = st.sampled_from([1e100, -1e100, 0.0, 5e-324, 1e-100]) | st.floats()
arguments = st.fixed_dictionaries(
    {},
    optional={
        "key": keys | any_value,
        "value": huge | any_value,
        "at": huge | any_value,
        "rows": st.lists(st.lists(huge | st.none(), max_size=3), max_size=4) | any_value,
        "process_noise": huge | any_value,
        "measurement_noise": huge | any_value,
        "reset": st.booleans() | any_value,
    },
)


@hostile
@given(calls=st.lists(arguments, max_size=4))
def test_any_arguments_give_finite_numbers_or_a_code(kalman: CallablePlugin, calls: list[dict[str, Any]]) -> None:
    for args in calls:
        outcome = kalman.outcome(args)
        if isinstance(outcome, int):
            assert outcome == 7
        else:
            numbers = [one for one in outcome.values() if isinstance(one, float)] + outcome.get("estimates", [])
            assert all(map(math.isfinite, numbers))


@hostile
@given(packed=st.binary(max_size=200))
def test_any_bytes_for_arguments_give_an_answer_or_a_code(kalman: CallablePlugin, packed: bytes) -> None:
    kalman.outcome_of_bytes(packed)
