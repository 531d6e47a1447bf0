"""MessagePack in steps is MessagePack: byte for byte and value for value what msgspec makes of it, within bounds."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wasm import bulk

BIG = bytes(bulk._AT_ONCE_BYTES)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=300)
)
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5) | st.integers(-9, 9), inner, max_size=20)
    ),
    max_leaves=40,
)


def same(one: Any, other: Any) -> bool:
    """Equal, types and NaN included."""
    return repr(one) == repr(other)


def walked(packed: bytes, **bounds: int) -> Any:
    """Decoded in steps, however short it is: behind something long."""
    value = bulk.decode(b"\x92" + msgspec.msgpack.encode(BIG) + packed, **bounds)
    assert value[0] == BIG
    return value[1]


@settings(deadline=None)
@given(plain)
def test_what_is_decoded_in_steps_is_what_msgspec_decodes(value: Any) -> None:
    packed = msgspec.msgpack.encode(value)
    assert same(walked(packed), msgspec.msgpack.decode(packed))


@pytest.mark.parametrize("length", [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_every_length_of_text_bytes_lists_and_maps_is_read(length: int) -> None:
    for value in ("x" * length, b"x" * length, [1] * length, dict.fromkeys(range(length), 1)):
        assert walked(msgspec.msgpack.encode(value)) == value


def test_moments_are_read_as_msgspec_reads_them() -> None:
    for at_s in (0.0, 1.5, 1e10, -1.5):
        moment = datetime.fromtimestamp(at_s, UTC)
        assert walked(msgspec.msgpack.encode(moment)) == moment


def test_a_float_of_32_bits_is_read() -> None:
    assert walked(struct.pack(">Bf", 0xCA, 1.5)) == 1.5
    assert math.isnan(walked(struct.pack(">Bf", 0xCA, math.nan)))


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_an_error_and_never_another_value_than_msgspecs(data: bytes) -> None:
    try:
        wanted = msgspec.msgpack.decode(data, ext_hook=bulk._refuse)
    except (msgspec.MsgspecError, ValueError, TypeError):
        with pytest.raises((ValueError, TypeError)):
            walked(data)
    else:
        assert same(walked(data), wanted)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc1",
        b"\xd4\x01x",
        b"\xd6\xff\x00\x00\x00",
        b"\xc7\x0c\x01" + bytes(12),
        b"\x81\x90\x01",
        b"\x01\x01",
        b"\xa2\xff\xff",
        b"\x91" * 200 + b"\x01",
    ],
)
def test_what_is_not_plain_or_not_whole_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        walked(data)
    assert not isinstance(caught.value, bulk.TooManyValues)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd" + (1 << 20).to_bytes(4, "big") + b"\x90" * (1 << 20),
        b"\xdd" + (1 << 19).to_bytes(4, "big") + b"\x91\x80" * (1 << 19),
        b"\xdf" + (1 << 19).to_bytes(4, "big") + b"\x01\x80" * (1 << 19),
    ],
)
def test_a_bomb_of_empty_containers_is_refused_before_it_unfolds(bomb: bytes) -> None:
    with pytest.raises(bulk.TooManyValues):
        bulk.decode(bomb)


def test_the_bound_counts_keys_and_values() -> None:
    assert walked(b"\x82\x01\x02\x03\x04", most_values=6) == {1: 2, 3: 4}
    with pytest.raises(bulk.TooManyValues):
        walked(b"\x82\x01\x02\x03\x04", most_values=5)


@pytest.mark.parametrize("count", [0, 15, 16, 1024, 1025, 1026, 1040, 2048, 65_535, 65_536, 70_000])
def test_long_lists_are_encoded_as_msgspec_does(count: int) -> None:
    value = {"rows": [[at, at * 0.5] for at in range(count)], "name": "x", "more": list(range(count)), "n": {"a": [1]}}
    assert bulk.encode(value) == msgspec.msgpack.encode(value)


def test_a_map_of_many_keys_with_long_lists_is_encoded_as_msgspec_does() -> None:
    for keys in (15, 16, 70_000):
        value: dict[str, Any] = dict.fromkeys((str(key) for key in range(keys - 1)), 1) | {"rows": [None] * 2000}
        assert bulk.encode(value) == msgspec.msgpack.encode(value)


def test_what_cannot_be_encoded_is_refused_in_slices_too() -> None:
    with pytest.raises(TypeError):
        bulk.encode({"rows": [object()] * 2000})


def _values(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(_values(key) + _values(item) for key, item in value.items())
    return 1 + sum(map(_values, value)) if isinstance(value, list) else 1


@given(plain)
def test_values_are_counted_without_being_made(value: Any) -> None:
    packed, count = msgspec.msgpack.encode(value), _values(value)
    assert bulk.unfolds_within(packed, count)
    assert bulk.unfolds_within(packed, count - 1) == (len(packed) <= count - 1)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_counting_bears_any_bytes(packed: bytes, most: int) -> None:
    assert bulk.unfolds_within(packed, most) in {True, False}


@pytest.mark.parametrize("byte", [b"\x80", b"\x90", b"\xc0", b"\x00", b"\xa0"])
def test_a_long_list_of_nothing_is_over_the_bound(byte: bytes) -> None:
    assert not bulk.unfolds_within(b"\xdd\x00\x10\x00\x00" + byte * (1 << 20), 65_536)


@pytest.mark.parametrize(
    "moment",
    [
        b"\xd6\xff\x00\x00\x00\xdb",
        b"\xd7\xff\x00\x00\x00\x00\x00\x00\x00\xdb",
        b"\xc7\x0c\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xdb",
        b"\xc8\x00\x01\x05\xdb",
        b"\xc9\x00\x00\x00\x01\x05\xdb",
    ],
)
def test_no_extension_hides_what_follows_it(moment: bytes) -> None:
    # Read one byte off, its last byte would begin a text as long as the next four bytes say: longer than all there is.
    assert not bulk.unfolds_within(b"\x92" + moment + b"\xdd\x00\x01\x00\x00" + b"\x80" * 65_536, 1000)


def test_extensions_are_stepped_over() -> None:
    moments = [datetime.fromtimestamp(second, UTC) for second in (0, 1 << 33, 1 << 35)]
    packed = msgspec.msgpack.encode(moments + [msgspec.msgpack.Ext(5, bytes(size)) for size in (1, 2, 16, 300, 70_000)])
    assert bulk.unfolds_within(packed, 9)
    assert not bulk.unfolds_within(packed, 8)
