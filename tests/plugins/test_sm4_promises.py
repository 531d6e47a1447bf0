"""Plugin sm4: the standards' examples, another implementation at random, and what a wrong message gives away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from fakes.callable_plugins import CallablePlugin, any_value, callable_plugin
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

hostile = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

KEY = bytes.fromhex("0123456789abcdeffedcba9876543210")
MILLIONFOLD = bytes.fromhex("595298c7c6fd271f0402f804c33d3f66")
"""The block KEY encrypted a million times under itself. Source: GB/T 32907-2016, annex A.2."""
TRUNCATED, CHECKSUM, BAD_ARGUMENT = 1, 3, 7

keys = st.binary(min_size=16, max_size=16)
ivs = st.binary(min_size=16, max_size=16)
nonces = st.binary(min_size=12, max_size=12)
messages = st.binary(max_size=100)


@pytest.fixture(scope="module")
def sm4() -> Iterator[CallablePlugin]:
    with callable_plugin("sm4") as plugin:
        yield plugin


def reference(mode: modes.Mode, key: bytes, data: bytes) -> bytes:
    encryptor = Cipher(algorithms.SM4(key), mode).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def pkcs7(data: bytes) -> bytes:
    return data + bytes([16 - len(data) % 16]) * (16 - len(data) % 16)


def test_the_examples_of_the_standards_come_out(sm4: CallablePlugin) -> None:
    assert sm4.broken_promises() == []


def test_a_block_encrypted_a_million_times_is_the_standards(sm4: CallablePlugin) -> None:
    """CBC over zeros encrypts the block before again and again, from the IV on."""
    block, zeros = KEY, bytes(16 * 100_000)
    for _ in range(10):
        block = sm4.call(op="encrypt", mode="cbc", key=KEY, iv=block, padding="none", data=zeros)["data"][-16:]
    assert block == MILLIONFOLD


@hostile
@given(key=keys, data=messages)
def test_ecb_is_what_another_implementation_makes_of_it(sm4: CallablePlugin, key: bytes, data: bytes) -> None:
    answer = sm4.call(op="encrypt", mode="ecb", key=key, data=data)
    assert answer == {"data": reference(modes.ECB(), key, pkcs7(data))}  # noqa: S305 - the mode is what is compared
    assert sm4.call(op="decrypt", mode="ecb", key=key, data=answer["data"]) == {"data": data}


@hostile
@given(key=keys, iv=ivs, data=messages)
def test_cbc_is_what_another_implementation_makes_of_it(
    sm4: CallablePlugin, key: bytes, iv: bytes, data: bytes
) -> None:
    answer = sm4.call(op="encrypt", mode="cbc", key=key, iv=iv, data=data)
    assert answer == {"data": reference(modes.CBC(iv), key, pkcs7(data))}
    assert sm4.call(op="decrypt", mode="cbc", key=key, iv=iv, data=answer["data"]) == {"data": data}


@hostile
@given(key=keys, nonce=nonces, aad=messages, data=messages, tag_len=st.integers(12, 16))
@example(key=KEY, nonce=bytes(12), aad=b"", data=b"", tag_len=16)
def test_gcm_is_what_another_implementation_makes_of_it(
    sm4: CallablePlugin, key: bytes, nonce: bytes, aad: bytes, data: bytes, tag_len: int
) -> None:
    encryptor = Cipher(algorithms.SM4(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(aad)
    expected = encryptor.update(data) + encryptor.finalize()

    common = {"mode": "gcm", "key": key, "nonce": nonce, "aad": aad, "tag_len": tag_len}
    answer = sm4.call(op="encrypt", data=data, **common)

    assert answer == {"data": expected, "tag": encryptor.tag[:tag_len]}
    assert sm4.call(op="decrypt", **common, **answer) == {"data": data}


@hostile
@given(
    data=messages,
    mode=st.sampled_from(["cbc", "gcm"]),
    key=keys | keys.map(bytes.hex),
    extra=st.fixed_dictionaries({}, optional={"padding": st.just("none")}),
)
def test_a_message_that_stands_alone_comes_back_and_is_never_twice_the_same(
    sm4: CallablePlugin, data: bytes, mode: str, key: bytes | str, extra: dict[str, str]
) -> None:
    if mode == "cbc" and extra:
        data = data[: len(data) // 16 * 16]
    args = {"mode": mode, "key": key, "iv": "prefix", **extra}

    first, second = (sm4.call(op="encrypt", data=data, **args)["data"] for _ in range(2))

    iv_len = 16 if mode == "cbc" else 12
    assert first[:iv_len] != second[:iv_len]
    for message in (first, second):
        assert sm4.call(op="decrypt", data=message, **args) == {"data": data}


def test_every_changed_bit_of_a_gcm_message_is_found(sm4: CallablePlugin) -> None:
    args = {"mode": "gcm", "key": KEY, "iv": "prefix", "aad": b"meter 7"}
    message = sm4.call(op="encrypt", data=b"21.5", **args)["data"]
    for bit in range(8 * len(message)):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        assert sm4.refusal(op="decrypt", data=bytes(changed), **args)[0] == CHECKSUM
    assert sm4.refusal(op="decrypt", data=message, **{**args, "aad": b"meter 8"})[0] == CHECKSUM


@hostile
@given(last=st.binary(min_size=16, max_size=16) | st.integers(0, 255).map(lambda byte: bytes([byte]) * 16))
def test_padding_is_removed_exactly_where_it_is_one(sm4: CallablePlugin, last: bytes) -> None:
    data = reference(modes.ECB(), KEY, b"sixteen bytes...".ljust(16) + last)  # noqa: S305 - the mode is what is tried
    count = last[-1]
    outcome = sm4.outcome({"op": "decrypt", "mode": "ecb", "key": KEY, "data": data})
    if 1 <= count <= 16 and last.endswith(bytes([count]) * count):
        assert outcome == {"data": b"sixteen bytes..." + last[: 16 - count]}
    else:
        assert outcome == CHECKSUM


def damaged(mode: str, secret: bytes) -> bytes:
    """A message that stands alone, encrypted elsewhere, whose last block is not what it was."""
    iv = bytes(range(12 if mode == "gcm" else 16))
    if mode == "gcm":
        encryptor = Cipher(algorithms.SM4(KEY), modes.GCM(iv)).encryptor()
        return iv + encryptor.update(secret) + encryptor.finalize() + bytes(16)
    if mode == "cbc":
        return iv + reference(modes.CBC(iv), KEY, secret.ljust(64, b"\0"))
    return reference(modes.ECB(), KEY, secret.ljust(64, b"\0"))  # noqa: S305 - the mode is what is tried


@pytest.mark.parametrize("mode", ["ecb", "cbc", "gcm"])
def test_a_refused_message_leaves_nothing_of_its_plaintext_in_memory(sm4: CallablePlugin, mode: str) -> None:
    secret = f"phrase of {mode} that must not leak".encode()
    args: dict[str, Any] = {"mode": mode, "key": KEY} | ({} if mode == "ecb" else {"iv": "prefix"})

    assert sm4.refusal(op="decrypt", data=damaged(mode, secret), **args)[0] == CHECKSUM

    assert secret[:8] not in sm4.memory()
    sm4.call(op="encrypt", data=secret, **args)
    assert secret[:8] in sm4.memory()  # or the look into memory would prove nothing


@pytest.mark.parametrize(
    ("args", "number", "says"),
    [
        ({"key": b"short"}, BAD_ARGUMENT, "key: must be 16 bytes, or their 32 hexadecimal digits"),
        ({"mode": "ctr"}, BAD_ARGUMENT, 'mode: must be "ecb", "cbc" or "gcm"'),
        ({"iv": None}, BAD_ARGUMENT, 'iv: is missing: give 16 bytes (or 32 hexadecimal digits), or "prefix"'),
        ({"op": "decrypt", "data": bytes(17)}, TRUNCATED, "data: is no multiple of 16 bytes"),
        (
            {"padding": "none", "data": bytes(17)},
            BAD_ARGUMENT,
            'is no multiple of 16 bytes, which padding "none" needs',
        ),
        (
            {"mode": "gcm", "iv": bytes(12), "padding": "pkcs7"},
            BAD_ARGUMENT,
            "padding: mode gcm has none: leave it out",
        ),
        ({"mode": "gcm", "iv": bytes(12), "tag_len": float("nan")}, BAD_ARGUMENT, "a number of bytes from 12 to 16"),
        ({"data": None}, BAD_ARGUMENT, "data: is missing: give bytes"),
    ],
)
def test_a_refusal_says_what_is_asked_for(sm4: CallablePlugin, args: dict[str, Any], number: int, says: str) -> None:
    refused = sm4.refusal(**({"op": "encrypt", "mode": "cbc", "key": KEY, "iv": bytes(16), "data": b""} | args))
    assert refused[0] == number
    assert refused[1].endswith(says)


def test_as_much_as_the_input_holds_comes_back(sm4: CallablePlugin) -> None:
    data = bytes(range(256)) * 8190
    for mode in ("cbc", "gcm"):
        message = sm4.call(op="encrypt", mode=mode, key=KEY, iv="prefix", data=data)["data"]
        assert sm4.call(op="decrypt", mode=mode, key=KEY, iv="prefix", data=message) == {"data": data}


words = st.sampled_from(["encrypt", "decrypt", "ecb", "cbc", "gcm", "prefix", "none", "pkcs7"])
arguments = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["encrypt", "decrypt"]) | any_value,
        "mode": st.sampled_from(["ecb", "cbc", "gcm"]) | any_value,
        "key": keys | any_value,
        "iv": st.just("prefix") | ivs | nonces | any_value,
        "nonce": nonces | any_value,
        "padding": words | any_value,
        "tag": st.binary(max_size=17) | any_value,
        "tag_len": st.integers(-1, 20) | any_value,
        "aad": messages | any_value,
        "data": messages | any_value,
    },
)


@hostile
@given(args=arguments)
def test_any_arguments_give_an_answer_or_a_code(sm4: CallablePlugin, args: dict[str, Any]) -> None:
    outcome = sm4.outcome(args)
    assert outcome in {TRUNCATED, CHECKSUM, BAD_ARGUMENT} if isinstance(outcome, int) else "data" in outcome


@hostile
@given(packed=st.binary(max_size=200))
def test_any_bytes_for_arguments_give_an_answer_or_a_code(sm4: CallablePlugin, packed: bytes) -> None:
    sm4.outcome_of_bytes(packed)
