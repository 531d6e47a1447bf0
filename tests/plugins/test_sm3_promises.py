"""Plugin sm3: the standard's examples, another implementation at random, and arguments of any kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from fakes.callable_plugins import CallablePlugin, any_value, callable_plugin
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

hostile = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def sm3() -> Iterator[CallablePlugin]:
    with callable_plugin("sm3") as plugin:
        yield plugin


def reference_hash(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SM3())
    digest.update(data)
    return digest.finalize()


def reference_hmac(key: bytes, data: bytes) -> bytes:
    mac = hmac.HMAC(key, hashes.SM3())
    mac.update(data)
    return mac.finalize()


def test_the_examples_of_the_standards_come_out(sm3: CallablePlugin) -> None:
    assert sm3.broken_promises() == []


@hostile
@given(data=st.binary(max_size=400))
def test_a_hash_is_what_another_implementation_makes_of_it(sm3: CallablePlugin, data: bytes) -> None:
    assert sm3.call(op="hash", data=data) == {"digest": reference_hash(data)}


def test_every_length_around_a_block_is_padded_right(sm3: CallablePlugin) -> None:
    for length in range(200):
        data = bytes(range(length))
        assert sm3.call(op="hash", data=data) == {"digest": reference_hash(data)}


@hostile
@given(key=st.binary(max_size=200), data=st.binary(max_size=200))
@example(key=b"", data=b"")
@example(key=b"k" * 64, data=b"d")
@example(key=b"k" * 65, data=b"d")
def test_a_mac_is_what_another_implementation_makes_of_it(sm3: CallablePlugin, key: bytes, data: bytes) -> None:
    assert sm3.call(op="hmac", key=key or b"\0", data=data) == {"mac": reference_hmac(key or b"\0", data)}


def test_a_megabyte_is_hashed(sm3: CallablePlugin) -> None:
    data = bytes(range(256)) * 4000
    assert sm3.call(op="hash", data=data) == {"digest": reference_hash(data)}


def test_text_counts_as_its_bytes(sm3: CallablePlugin) -> None:
    assert sm3.call(op="hash", data="流量") == {"digest": reference_hash("流量".encode())}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"op": "sign"}, 'op: must be "hash" or "hmac"'),
        ({}, 'op: is missing: give "hash" or "hmac"'),
        ({"op": "hash"}, "data: is missing: give bytes"),
        ({"op": "hmac", "data": b""}, "key: is missing: give bytes"),
        ({"op": "hash", "data": [1]}, "data: must be bytes"),
    ],
)
def test_a_refusal_names_the_argument(sm3: CallablePlugin, args: dict[str, Any], says: str) -> None:
    number, text = sm3.refusal(**args)
    assert number == 7
    assert text.endswith(says)


@hostile
@given(args=any_value | st.dictionaries(st.sampled_from(["op", "data", "key"]), any_value | st.just("hmac")))
def test_any_arguments_give_an_answer_or_a_code(sm3: CallablePlugin, args: Any) -> None:
    outcome = sm3.outcome(args)
    assert outcome == 7 or list(outcome) in (["digest"], ["mac"])


@hostile
@given(packed=st.binary(max_size=200))
@example(b"")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\x82\xa2op\xa4hash\xa4data\xc6\xff\xff\xff\xff")
def test_any_bytes_for_arguments_give_an_answer_or_a_code(sm3: CallablePlugin, packed: bytes) -> None:
    sm3.outcome_of_bytes(packed)
