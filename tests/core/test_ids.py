import uuid

from fakes.traffic import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ids import new_id


@given(now_ms=st.integers(0, 2**48 - 1))
def test_an_id_is_a_uuid_of_version_7_and_carries_its_time(now_ms: int) -> None:
    made = uuid.UUID(new_id(FakeClock(now_ms)))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == now_ms


@given(first=st.integers(0, 2**48 - 2), later=st.integers(1, 10**9))
def test_a_later_id_sorts_after_an_earlier_one(first: int, later: int) -> None:
    clock = FakeClock(first)
    earlier = new_id(clock)
    clock.ms = min(first + later, 2**48 - 1)
    assert new_id(clock) > earlier


def test_ids_of_one_millisecond_differ() -> None:
    clock = FakeClock()
    assert len({new_id(clock) for _ in range(10_000)}) == 10_000
