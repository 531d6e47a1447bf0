"""Expressions become secrets and signatures; secrets do not become texts."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import Rejected
from gateway.notify.config import PluginChannelConfig
from gateway.notify.expressions import DEPTH, EXPRESSIONS, FILLED_BYTES, PARTS, VALUES, Filling, Secrets

SECRETS = Secrets({"key": "s3cret-of-the-robot", "url": "https://h.example/hook/tok-0123456789ab?a=short"})
REF = {"$secret": "key"}
KEY = "s3cret-of-the-robot"


def resolve(value: Any, secrets: Secrets) -> Any:
    return Filling(secrets).resolve(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def mac(key: str, data: str) -> bytes:
    return hmac.new(key.encode(), data.encode(), hashlib.sha256).digest()


def test_a_secret_stands_wherever_it_is_named() -> None:
    asked = {"a": [REF, {"b": REF}], "c": 1, "d": "$secret"}
    assert resolve(asked, SECRETS) == {"a": [KEY, {"b": KEY}], "c": 1, "d": "$secret"}


@pytest.mark.parametrize(
    ("parts", "key", "data"),
    [
        ({"key": [REF], "data": ["1\n", REF]}, KEY, f"1\n{KEY}"),
        ({"key": ["1\n", REF], "data": []}, f"1\n{KEY}", ""),
        ({"key": [REF]}, KEY, ""),
        ({"key": [], "data": ["中"]}, "", "中"),
    ],
)
def test_a_signature_is_what_another_implementation_makes(parts: dict[str, Any], key: str, data: str) -> None:
    expected = mac(key, data)
    assert resolve({"$hmac_sha256": parts}, SECRETS) == base64.b64encode(expected).decode()
    assert resolve({"$hmac_sha256": parts | {"encoding": "hex"}}, SECRETS) == expected.hex()


def test_the_example_of_the_rfc_comes_out() -> None:
    """Source: RFC 4231, test case 2."""
    asked = {"$hmac_sha256": {"key": ["Jefe"], "data": ["what do ya want ", "for nothing?"], "encoding": "hex"}}
    assert resolve(asked, Secrets({})) == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"$secret": "other"}, r"no secret 'other'; it has: key, url"),
        ({"$secret": 5}, "expression"),
        ({"$secret": "key", "more": 1}, "expression"),
        ({"$hmac_sha256": {"data": []}}, "key"),
        ({"$hmac_sha256": {"key": "text"}}, "array"),
        ({"$hmac_sha256": {"key": [5]}}, "expression"),
        ({"$hmac_sha256": {"key": [{"$hmac_sha256": {"key": []}}]}}, "expression"),
        ({"$hmac_sha256": {"key": [], "encoding": "base32"}}, "base32"),
        ({"$hmac_sha256": {"key": [], "extra": 1}}, "extra"),
        ({"$hmac_sha256": {"key": []}, "more": 1}, "alone"),
        ({"$hmac_sha256": {"key": [""] * (PARTS + 1)}}, "parts"),
        ({"$sha512": {}}, r"no expression '\$sha512'"),
        ({"a": {"$": 1}}, "no expression"),
    ],
)
def test_an_expression_that_is_none_is_refused_with_its_reason(asked: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason) as refusal:
        resolve(asked, SECRETS)
    assert KEY not in str(refusal.value)


def test_values_are_nested_only_so_deep() -> None:
    value: Any = REF
    for _ in range(DEPTH):
        value = [value]
    assert KEY in str(resolve(value, SECRETS))
    with pytest.raises(Rejected, match="nested"):
        resolve([value], SECRETS)


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        ([REF] * (EXPRESSIONS + 1), "more than 64 expressions"),
        ([{"$hmac_sha256": {"key": []}}] * (EXPRESSIONS + 1), "more than 64 expressions"),
        ([{"$hmac_sha256": {"key": [REF] * 16}}] * 4, "more than 64 expressions"),
        ({"$hmac_sha256": {"key": ["x" * (FILLED_BYTES + 1)]}}, "more than 1048576 bytes"),
        ([{"$hmac_sha256": {"key": [], "data": ["x" * (FILLED_BYTES // 32)]}}] * 33, "more than 1048576 bytes"),
        ([None] * VALUES, "more than 4000 values"),
        ({str(number): {} for number in range(VALUES)}, "more than 4000 values"),
    ],
)
def test_an_answer_full_of_expressions_is_refused_before_it_costs_anything(bomb: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        resolve(bomb, SECRETS)


def test_the_bounds_of_expressions_hold_for_a_whole_answer_and_at_their_edge() -> None:
    filling = Filling(SECRETS)
    assert filling.resolve([REF] * EXPRESSIONS) == [KEY] * EXPRESSIONS
    with pytest.raises(Rejected, match="expressions"):
        filling.resolve(REF)
    assert len(resolve([None] * (VALUES - 1), SECRETS)) == VALUES - 1
    assert resolve({"$hmac_sha256": {"key": [], "data": ["x" * FILLED_BYTES]}}, SECRETS)


def test_long_secrets_are_counted_by_what_they_become() -> None:
    long = Secrets({"key": "x" * 8192 * 4})
    assert resolve([REF] * 32, long)
    with pytest.raises(Rejected, match="fill in more than"):
        resolve([REF] * 33, long)


def test_a_secret_that_is_no_text_is_refused_with_its_reason() -> None:
    for asked in (REF, {"$hmac_sha256": {"key": [REF]}}):
        with pytest.raises(Rejected, match="no UTF-8"):
            resolve(asked, Secrets({"key": "a\udcffb"}))


@given(json_values)
def test_any_value_comes_back_as_it_was_or_is_refused(value: Any) -> None:
    try:
        assert resolve(value, Secrets({})) == value
    except Rejected:
        assert "$" in str(value) or "[[" in str(value)


@pytest.mark.parametrize(
    "text",
    [
        f"bad key {KEY}!",
        "POST https://h.example/hook/tok-0123456789ab?a=short",
        "no hook tok-0123456789ab here",
        "https%3A%2F%2Fh.example%2Fhook%2Ftok-0123456789ab%3Fa%3Dshort",
    ],
)
def test_a_text_that_echoes_a_secret_is_blanked(text: str) -> None:
    shown = SECRETS.redact(text)
    assert "[redacted]" in shown
    for secret in (KEY, "tok-0123456789ab"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("https://h.example/T0A1/b%2Fc%3Dtok", "b/c=tok"),
        ("https://h.example/x/a+b c-token", "a+b%20c-token"),
        ("https://h.example/x?key=a%2Fb%2Bc", "a/b+c"),
        ("https://h.example/x?key=a%2Fb%2Bc", "a%2fb%2bc"),
        ("https://h.example/x?key=ab12", "ab12"),
        ("https://h.example/x?a=1&key=wxyz&b=2", "wxyz"),
        ("https://h.example/hooks/s3cr", "s3cr"),
        ("https://h.example/hooks/B01234/x", "B01234"),
        ('pass"word\\n', 'pass\\"word\\\\n'),
        ("geheim-ü", "geheim-\\u00fc"),
        ("a/b/c/d", "a\\/b\\/c\\/d"),
        ("a&b=c", "a\\u0026b=c"),
        ("a&b=c", "a&amp;b=c"),
    ],
)
def test_a_secret_is_blanked_in_every_spelling_and_so_are_short_tokens_of_a_url(secret: str, told: str) -> None:
    assert Secrets({"url": secret}).redact(f"you sent <{told}>!") == "you sent <[redacted]>!"


@given(st.integers(0, 120), st.sampled_from(["https://h.example/hook/tok-0123456789ab", "中文-secret", KEY]))
def test_an_excerpt_ends_with_no_part_of_a_secret(most: int, secret: str) -> None:
    secrets = Secrets({"url": secret})
    body = ("~" * 40 + secret + "~" * 200 + secret).encode()
    for text in (
        secrets.excerpt(body, most),
        secrets.excerpt(body[: 40 + most // 4], 1000, cut=True),
        secrets.excerpt(body[:most], most, cut=True),
    ):
        kept = text.replace("[redacted]", "").strip("~")
        assert "[redacted]".startswith(kept)
    assert secrets.excerpt(b"abc", 2) == "ab"


def test_other_words_stay_as_they_are() -> None:
    assert SECRETS.redact("other words, and h.example") == "other words, and h.example"
    robot = Secrets({"url": "https://h.example/robot/send?access_token=0123456789"})
    assert (
        robot.redact("the robot cannot send, access_token is wrong") == "the robot cannot send, access_token is wrong"
    )
    host = "long-host.example.com:8443"
    assert Secrets({"url": f"https://{host}/x"}).redact(host) == host
    assert Secrets({}).redact("x") == "x"


def test_neither_secrets_nor_a_configuration_prints_a_value() -> None:
    config = PluginChannelConfig(plugin="dingtalk", secrets={"key": KEY})
    for text in (repr(SECRETS), str(SECRETS), repr(config), f"{config}", repr([config]), repr({"a": SECRETS})):
        assert KEY not in text
        assert "key" in text
