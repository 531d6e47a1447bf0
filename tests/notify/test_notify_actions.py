"""What a plugin asks for is checked before anything leaves."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import Rejected
from gateway.notify.actions import (
    ACTIONS,
    BODY_BYTES,
    FIELDS,
    HEADER_BYTES,
    QUERY_BYTES,
    URL_CHARS,
    Request,
    requests_of,
    verdict_of,
)
from gateway.notify.expressions import EXPRESSIONS, Secrets

SECRETS = Secrets({"url": "https://h.example/send?token=a%2Bb", "key": "k", "crlf": "a\r\nHost: evil"})


def asked(**http: Any) -> Any:
    return {"actions": [{"http": {"url_ref": "url", **http}}]}


def only(**http: Any) -> Request:
    (request,) = requests_of(asked(**http), SECRETS)
    return request


def test_a_json_body_gets_its_content_type_and_a_query_joins_the_urls_own() -> None:
    request = only(json={"k": {"$secret": "key"}, "中": [1.5, None]}, query={"sign": "a+b/c=", "n": 5})
    assert request.method == "POST"
    assert request.body == '{"k":"k","中":[1.5,null]}'.encode()
    assert request.headers == {"Content-Type": "application/json; charset=utf-8"}
    assert parse_qsl(urlsplit(request.url).query) == [("token", "a+b"), ("sign", "a+b/c="), ("n", "5")]


def test_a_plain_body_is_sent_as_it_is() -> None:
    assert only(body="中", method="PUT", headers={"content-type": "text/plain"}) == Request(
        "PUT", "https://h.example/send?token=a%2Bb", {"content-type": "text/plain"}, "中".encode()
    )
    assert only(body=b"\xff").body == b"\xff"
    assert only(method="GET").body == b""


def test_a_query_goes_before_the_fragment_and_after_a_path() -> None:
    for url, expected in (("https://h/p#f", "https://h/p?a=1"), ("https://h/p?b=2#f", "https://h/p?b=2&a=1")):
        (request,) = requests_of(asked(query={"a": "1"}), Secrets({"url": url}))
        assert request.url == expected


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "answer"),
        ([], "answer"),
        ({}, "actions"),
        ({"actions": []}, "0 actions"),
        ({"actions": [{"http": {"url_ref": "url"}}] * (ACTIONS + 1)}, "actions"),
        ({"actions": [{"mqtt": {}}]}, "mqtt|http"),
        ({"actions": [{"http": {}}]}, "url_ref"),
        (asked(url="https://evil.example/"), "unknown field `url`"),
        (asked(method="DELETE"), "DELETE"),
        (asked(method="CONNECT"), "CONNECT"),
        ({"actions": [{"http": {"url_ref": "nothing"}}]}, "no secret 'nothing'"),
        (asked(json={}, body=""), "give one"),
        (asked(body=5), "neither text nor bytes"),
        (asked(body={"a": 1}), "neither text nor bytes"),
        (asked(json={"$secret": "nothing"}), "no secret"),
        (asked(query={"a": [1]}), "neither text nor a whole number"),
        (asked(query={"a": True}), "neither text nor a whole number"),
        (asked(headers={"A": 1.5}), "neither text nor a whole number"),
        (asked(query={str(n): "" for n in range(FIELDS + 1)}), "more than 16"),
        (asked(headers={f"X-{n}": "" for n in range(FIELDS + 1)}), "more than 16"),
        (asked(headers={"X": "a\r\nb"}), "line break"),
        (asked(headers={"X": {"$secret": "crlf"}}), "line break"),
        (asked(headers={"Host": "evil"}), "gateway's to set"),
        (asked(headers={"content-length": "1"}), "gateway's to set"),
        (asked(headers={"X Y": ""}), "token"),
        (asked(headers={"X": "x" * HEADER_BYTES}), "larger"),
        (asked(body="x" * (BODY_BYTES + 1)), "body of more than"),
        (asked(json="x" * BODY_BYTES), "body of more than"),
        (asked(json={None: 1}), "no JSON"),
        (asked(query={"a": "x" * QUERY_BYTES}), "parameters of more than 4096 bytes"),
        (asked(query={"x" * QUERY_BYTES: "a"}), "parameters of more than 4096 bytes"),
    ],
)
def test_what_a_plugin_may_not_ask_is_refused_with_its_reason(answer: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason) as refusal:
        requests_of(answer, SECRETS)
    assert "evil" not in str(refusal.value) or "Host" not in str(refusal.value)


def test_a_url_is_only_so_long() -> None:
    secrets = Secrets({"url": "https://h.example/" + "x" * URL_CHARS})
    with pytest.raises(Rejected, match="more than 16384 characters"):
        requests_of(asked(), secrets)


def test_the_bounds_of_expressions_hold_for_all_actions_together() -> None:
    ref = {"$secret": "key"}
    fits = [{"http": {"url_ref": "url", "json": [ref] * (EXPRESSIONS // 2)}}] * 2
    assert len(requests_of({"actions": fits}, SECRETS)) == 2
    with pytest.raises(Rejected, match="more than 64 expressions"):
        requests_of({"actions": [*fits, {"http": {"url_ref": "url", "query": {"q": ref}}}]}, SECRETS)


any_answer = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=6) | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["actions", "http", "url_ref", "method", "query", "headers", "json", "body", "$secret"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(any_answer)
def test_any_answer_is_requests_or_a_refusal(answer: Any) -> None:
    for candidate in (answer, {"actions": [{"http": answer}]}, asked(json=answer, query={"q": answer})):
        try:
            requests_of(candidate, SECRETS)
        except Rejected:
            continue


@given(any_answer)
def test_any_verdict_is_one_or_a_refusal(answer: Any) -> None:
    try:
        verdict_of(answer)
    except Rejected:
        return


def test_a_verdict_needs_ok() -> None:
    assert verdict_of({"ok": False, "error": "no", "retry_after_s": 5}).retry_after_s == 5
    for wrong in ({}, {"ok": 1}, {"ok": True, "fine": 1}, None):
        with pytest.raises(Rejected):
            verdict_of(wrong)


@pytest.mark.parametrize("wait", [float("nan"), float("inf"), float("-inf"), -1, -0.5, 1e300])
def test_a_wait_that_is_none_is_refused(wait: float) -> None:
    with pytest.raises(Rejected, match="retry_after_s"):
        verdict_of({"ok": False, "retry_after_s": wait})
