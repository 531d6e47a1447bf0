"""The shipped notify plugins: their promises, signatures as the services compute them, and no argument that traps."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fakes.callable_plugins import CallablePlugin, any_value, callable_plugin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.notify.actions import Request, requests_of, verdict_of
from gateway.notify.expressions import Secrets
from gateway.notify.model import TEXT_CHARS, TITLE_CHARS

SHIPPED = ("dingtalk", "wecom", "feishu", "webhook")
NOW_MS = 1_795_248_000_123
KEY = "SEC-a secret key"
hostile = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])

MESSAGE = {
    "id": "n1",
    "title": "锅炉过热",
    "text": "81 Cel",
    "severity": "major",
    "device": "boiler-1",
    "at": "2026-11-21T08:00:00.000Z",
    "link": "",
}


@pytest.fixture(scope="module")
def shipped() -> Iterator[dict[str, CallablePlugin]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(callable_plugin(name)) for name in SHIPPED}


@pytest.fixture(params=SHIPPED)
def plugin(request: pytest.FixtureRequest, shipped: dict[str, CallablePlugin]) -> CallablePlugin:
    return shipped[request.param]


def asked(plugin: CallablePlugin, *, secrets: dict[str, str], **changes: Any) -> Request:
    """The one request that a plugin makes of a message, with the secrets in it."""
    channel = {"name": "ops", "args": changes.pop("args", {}), "secrets": sorted(secrets)}
    answer = plugin.call(op="notify", channel=channel, message=MESSAGE | changes, now_ms=NOW_MS)
    (request,) = requests_of(answer, Secrets(secrets))
    return request


def sha256_mac(key: str, data: str) -> bytes:
    return hmac.new(key.encode(), data.encode(), hashlib.sha256).digest()


def test_what_the_vectors_promise_comes_out(plugin: CallablePlugin) -> None:
    assert plugin.release.manifest.kind == "notify"
    assert plugin.release.manifest.caps.emit
    assert plugin.broken_promises() == []


def test_dingtalk_signs_in_the_query_beside_the_token(shipped: dict[str, CallablePlugin]) -> None:
    url = "https://oapi.dingtalk.com/robot/send?access_token=t0"
    request = asked(shipped["dingtalk"], secrets={"url": url, "key": KEY})
    query = parse_qs(urlsplit(request.url).query, strict_parsing=True)
    expected = base64.b64encode(sha256_mac(KEY, f"{NOW_MS}\n{KEY}")).decode()
    assert query == {"access_token": ["t0"], "timestamp": [str(NOW_MS)], "sign": [expected]}
    assert request.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(("name", "mentions"), [("dingtalk", "at_mobiles"), ("wecom", "mentioned")])
@pytest.mark.parametrize("form", ["markdown", "text"])
def test_of_a_message_that_is_too_long_the_text_is_cut_and_neither_people_nor_link(
    shipped: dict[str, CallablePlugin], name: str, mentions: str, form: str
) -> None:
    args = {"format": form, mentions: ["13800000000"]}
    link = "https://example.com/a?b=1"
    request = asked(shipped[name], secrets={"url": "https://h.example/x"}, args=args, text="锅" * 10_000, link=link)
    body = json.loads(request.body)
    sent = next(iter(part for part in (body.get("text"), body.get("markdown")) if part))
    shown = sent.get("content") or sent["text"]
    assert shown.endswith("锅...")
    assert link in shown
    assert "13800000000" in shown + json.dumps(sent.get("mentioned_list"))


def test_feishu_signs_nothing_with_the_time_and_the_secret_as_the_key(shipped: dict[str, CallablePlugin]) -> None:
    url = "https://open.feishu.cn/open-apis/bot/v2/hook/x"
    request = asked(shipped["feishu"], secrets={"url": url, "key": KEY})
    body = json.loads(request.body)
    assert body["timestamp"] == str(NOW_MS // 1000)
    assert body["sign"] == base64.b64encode(sha256_mac(f"{NOW_MS // 1000}\n{KEY}", "")).decode()


@hostile
@given(title=st.text(min_size=1, max_size=50), text=st.text(max_size=200))
def test_webhook_signs_the_very_bytes_that_it_sends(shipped: dict[str, CallablePlugin], title: str, text: str) -> None:
    secrets = {"url": "https://h.example/x", "key": KEY}
    request = asked(shipped["webhook"], secrets=secrets, title=title, text=text)
    assert request.headers["X-Signature"] == hmac.new(KEY.encode(), request.body, hashlib.sha256).hexdigest()
    body = json.loads(request.body)
    assert (body["title"], body["text"], body["channel"]) == (title, text, "ops")


@pytest.mark.parametrize(("format_", "most"), [("markdown", 4096), ("text", 2048)])
@pytest.mark.parametrize("letter", ["a", "é", "热", "🔥"])
def test_wecom_cuts_a_long_text_between_two_characters(
    shipped: dict[str, CallablePlugin], format_: str, most: int, letter: str
) -> None:
    secrets = {"url": "https://q.example"}
    request = asked(shipped["wecom"], secrets=secrets, text=letter * 5000, args={"format": format_})
    content = json.loads(request.body)[format_]["content"]
    assert most - 4 - len(letter.encode()) < len(content.encode()) <= most
    assert content.endswith(letter + "...")


def test_the_longest_text_fits_what_the_services_take(shipped: dict[str, CallablePlugin]) -> None:
    for name, most in (("dingtalk", 20_000), ("feishu", 20_480), ("webhook", 30_000)):
        for letter in ("热", "\n", '"'):
            secrets = {"url": "https://q.example"}
            request = asked(shipped[name], secrets=secrets, title="热" * TITLE_CHARS, text=letter * TEXT_CHARS)
            assert len(request.body) <= most, name


@hostile
@given(args=any_value)
def test_no_argument_makes_a_plugin_trap(plugin: CallablePlugin, args: Any) -> None:
    plugin.outcome(args)


@hostile
@given(
    channel=st.fixed_dictionaries({}, optional={"name": any_value, "args": any_value, "secrets": any_value}),
    message=st.fixed_dictionaries({}, optional={name: any_value | st.text(max_size=9) for name in MESSAGE}),
    now_ms=any_value,
)
def test_no_message_makes_a_plugin_trap(plugin: CallablePlugin, channel: Any, message: Any, now_ms: Any) -> None:
    plugin.outcome({"op": "notify", "channel": channel, "message": MESSAGE | message, "now_ms": now_ms})


REPLIES = st.text(max_size=60) | st.text(alphabet='{}[]":,\\u0eno\x00\x01 rcdmsg-19', max_size=60)


@hostile
@given(body=REPLIES, status=st.integers(0, 999))
def test_any_reply_is_judged(plugin: CallablePlugin, body: str, status: int) -> None:
    verdict = verdict_of(plugin.call(op="judge", channel={"name": "ops"}, status=status, body=body))
    assert verdict.ok or verdict.error


@hostile
@given(code=st.integers(-(10**14), 10**14), words=st.text(max_size=400), extra=st.recursive(st.none(), st.lists))
def test_a_code_other_than_0_is_no_success_and_its_words_are_shown(
    shipped: dict[str, CallablePlugin], code: int, words: str, extra: Any
) -> None:
    for name, code_key, words_key in (("dingtalk", "errcode", "errmsg"), ("feishu", "code", "msg")):
        body = json.dumps({"x": extra, words_key: words, code_key: code})
        verdict = verdict_of(shipped[name].call(op="judge", channel={"name": "ops"}, status=200, body=body))
        assert verdict.ok is (code == 0)
        assert len(verdict.error.encode()) <= 300
        if code and words.isascii() and words.isalnum():
            assert verdict.error.startswith(f"{code_key} {code}: {words}"[:290])


def test_half_of_an_escape_is_not_read_past_its_end(shipped: dict[str, CallablePlugin]) -> None:
    def error(words: str) -> str:
        body = '{"errcode":5,"errmsg":' + words + "}"
        return str(shipped["dingtalk"].call(op="judge", channel={}, status=200, body=body)["error"])

    assert error('"\\u00e9\\u70ed\\n\\"x\\""') == 'errcode 5: é热 "x"'
    assert error('"\\ud83d\\ude00"') == "errcode 5: ??"
    assert error('"\\u12"') == "errcode 5:  12"
    assert error('"\\u"') == "errcode 5:  "
    assert error('"\\') == "errcode 5"
