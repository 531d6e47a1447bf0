"""Delivery by a plugin: it sees no secret, sends nothing itself, and cannot make a failure a success."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from fakes.notify_fakes import RecordingOutbound, ScriptedPlugins
from fakes.rules_fakes import SetClock

from gateway.core.errors import CodecError, ConfigError, GatewayError, NotFound, NotReady, PluginTrapped, Rejected
from gateway.core.outbound import Reply
from gateway.extensions.discovery import extension_manager, notifier_kinds
from gateway.notify.actions import ANSWER_BYTES, VERDICT_BYTES
from gateway.notify.config import PluginChannelConfig
from gateway.notify.model import Notification, Undelivered
from gateway.notify.plugin import JUDGINGS, PluginNotifier

URL = "https://h.example/hook/canary-0123456789"
KEY = "canary-key-of-the-robot"
CUT = 16 * 1024
NOTE = Notification(
    id="n1", tenant_id="default", channel="ops", title="Too hot", text="81", severity="major", device_id="d1",
    link="https://example.com", created_at_ms=1_800_000_000_000,
)  # fmt: skip


def speaks(args: dict[str, Any]) -> Any:
    """A plugin that signs its message, and judges by `errcode`."""
    if args["op"] == "notify":
        sign = {"$hmac_sha256": {"key": [{"$secret": "key"}], "data": ["x"], "encoding": "hex"}}
        body = {"title": args["message"]["title"], "sign": sign, "token": {"$secret": "key"}}
        return {"actions": [{"http": {"url_ref": "url", "json": body}}]}
    try:
        code = json.loads(args["body"]).get("errcode")
    except ValueError:
        return {"ok": args["status"] == 200}
    verdict: dict[str, Any] = {"ok": code == 0, "error": f"errcode {code}"}
    return verdict | ({"retry_after_s": 60.0} if code == 130101 else {})


class Bench:
    def __init__(self, *replies: Any, plugin: Any = speaks, **config: Any) -> None:
        self.plugins = ScriptedPlugins(chat=plugin)
        self.outbound = RecordingOutbound(*replies)
        settings = {"plugin": "chat", "secrets": {"url": URL, "key": KEY}, "args": {"at": ["138"]}} | config
        self.notifier = PluginNotifier(
            "ops",
            PluginChannelConfig(**settings),
            outbound=self.outbound,
            plugins=self.plugins,
            grants=self.plugins,
            clock=SetClock(),
        )

    async def refused(self) -> Undelivered:
        with pytest.raises(Undelivered) as failure:
            await self.notifier.send(NOTE)
        assert "canary" not in str(failure.value)
        return failure.value


OK = Reply(200, {}, b'{"errcode":0}')


async def test_a_plugin_gets_the_message_and_the_names_of_secrets_and_the_host_fills_them_in() -> None:
    bench = Bench(OK)
    await bench.notifier.send(NOTE)
    asked, judged = bench.plugins.asked
    assert asked == {
        "op": "notify",
        "channel": {"name": "ops", "args": {"at": ["138"]}, "secrets": ["key", "url"]},
        "message": {
            "id": "n1",
            "title": "Too hot",
            "text": "81",
            "severity": "major",
            "device": "d1",
            "at": "2027-01-15T08:00:00.000Z",
            "link": "https://example.com",
        },
        "now_ms": 1_800_000_000_000,
    }
    assert (judged["op"], judged["status"], judged["body"]) == ("judge", 200, '{"errcode":0}')
    ((method, url, headers, body),) = bench.outbound.requests
    assert (method, url) == ("POST", URL)
    assert json.loads(body)["token"] == KEY
    assert len(json.loads(body)["sign"]) == 64
    assert headers["Content-Type"].startswith("application/json")


async def test_nothing_that_a_plugin_sees_holds_a_secret_even_if_the_server_echoes_it() -> None:
    echo = Reply(200, {}, json.dumps({"errcode": 5, "you": f"sent {KEY} to {URL}"}).encode())
    bench = Bench(echo, plugin=lambda args: speaks(args) | ({"error": args["body"]} if args["op"] == "judge" else {}))
    failure = await bench.refused()
    assert "canary" not in str(bench.plugins.asked)
    assert "[redacted]" in str(failure)


@pytest.mark.parametrize(
    ("reply", "again", "wait_s", "text"),
    [
        (Reply(200, {}, b'{"errcode":310000}'), False, None, "errcode 310000"),
        (Reply(200, {}, b'{"errcode":130101}'), True, 60.0, "errcode 130101"),
        (Reply(503, {}, b"down"), True, None, "the service answered 503"),
        (Reply(500, {}, b'{"errcode":0}'), True, None, "errcode 0"),
        (Reply(429, {"retry-after": "120"}, b"slow"), True, 120.0, "the service answered 429"),
        (Reply(429, {"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, b"slow"), True, 30.0, "429"),
        (Reply(429, {"retry-after": "Fri, 15 Jan 2010 08:00:30 GMT"}, b"slow"), True, 0.0, "429"),
        (Reply(429, {"retry-after": "soon"}, b"slow"), True, None, "429"),
        (Reply(404, {}, b"gone"), False, None, "the service answered 404"),
        (Reply(302, {"location": "https://evil.example"}, b""), False, None, "the service answered 302"),
        (NotReady("no connection"), True, None, "no connection"),
        (ConfigError("add it to [outbound] allow"), True, None, "allow"),
        (Rejected("the headers are larger"), False, None, "headers"),
        (Reply(429, {"retry-after": "Fri, 31 Dec 9999 23:59:59 -9900"}, b"slow"), True, None, "429"),
        (Reply(429, {"retry-after": "Fri, 15 Jan 2027 08:00:30 -0000"}, b"slow"), True, 30.0, "429"),
        (Reply(429, {"retry-after": "-5"}, b"slow"), True, None, "429"),
    ],
)
async def test_what_an_answer_means(reply: Any, again: bool, wait_s: float | None, text: str) -> None:
    failure = await Bench(reply).refused()
    assert (failure.again, failure.retry_after_s) == (again, wait_s)
    assert text in str(failure)


async def test_a_plugin_that_calls_every_answer_a_success_does_not_make_it_one() -> None:
    bench = Bench(Reply(500, {}, b""), plugin=lambda args: {"ok": True} if args["op"] == "judge" else speaks(args))
    assert (await bench.refused()).again
    bench = Bench(Reply(301, {}, b""), plugin=lambda args: {"ok": True} if args["op"] == "judge" else speaks(args))
    assert not (await bench.refused()).again


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (None, "answer"),
        ({"actions": []}, "0 actions"),
        ({"actions": [{"http": {"url_ref": "other"}}]}, "no secret 'other'"),
        ({"actions": [{"http": {"url_ref": "url", "headers": {"Host": "x"}}}]}, "gateway's to set"),
        ({"actions": [{"http": {"url_ref": "url", "json": {"$secrets": "key"}}}]}, "no expression"),
    ],
)
async def test_an_answer_that_asks_for_what_is_not_allowed_sends_nothing(answer: Any, text: str) -> None:
    bench = Bench(plugin=lambda _: answer)
    failure = await bench.refused()
    assert text in str(failure)
    assert not failure.again
    assert bench.outbound.requests == []


async def test_every_request_is_checked_before_the_first_leaves() -> None:
    second = {"http": {"url_ref": "second"}}
    bench = Bench(
        plugin=lambda _: {"actions": [{"http": {"url_ref": "url"}}, second]},
        secrets={"url": URL, "second": "https://elsewhere.example/x"},
    )
    bench.outbound.refusals["https://elsewhere"] = ConfigError("not on the list")
    assert (await bench.refused()).again
    assert bench.outbound.requests == []


async def test_a_plugin_that_fails_is_a_failure_and_one_that_is_not_ready_is_asked_again() -> None:
    def raises(error: Exception) -> Any:
        def plugin(args: dict[str, Any]) -> Any:
            raise error

        return plugin

    assert not (await Bench(plugin=raises(CodecError(7, "args.format: write card or text"))).refused()).again
    assert (await Bench(plugin=raises(NotReady("it does not start"))).refused()).again
    missing = Bench()
    missing.plugins.plugins.clear()
    assert (await missing.refused()).again
    assert (await Bench(plugin=raises(PluginTrapped(0, "it ran out of time"))).refused()).again


async def test_a_judge_that_fails_is_no_success() -> None:
    bench = Bench(OK, plugin=lambda args: {"fine": True} if args["op"] == "judge" else speaks(args))
    failure = await bench.refused()
    assert not failure.again
    assert len(bench.outbound.requests) == 1


class Mute:
    """A plugin whose next judgings end as `failures` say."""

    def __init__(self, *failures: GatewayError) -> None:
        self.failures = list(failures)
        self.judged = 0

    def __call__(self, args: dict[str, Any]) -> Any:
        if args["op"] == "judge":
            self.judged += 1
            if self.failures:
                raise self.failures.pop(0)
        return speaks(args)


DUMB = [
    NotReady("in quarantine"),
    PluginTrapped(0, "ran out of time"),
    NotFound("no plugin"),
    ConfigError("it does not run"),
]


@pytest.mark.parametrize("failure", DUMB)
async def test_what_the_service_took_is_judged_again_and_never_sent_again(failure: GatewayError) -> None:
    bench = Bench(OK, plugin=Mute(failure, failure))
    for _ in range(2):
        refused = await bench.refused()
        assert refused.again
        assert "cannot judge it yet" in str(refused)
    assert await bench.notifier.send(NOTE) is None
    assert len(bench.outbound.requests) == 1
    assert [args["op"] for args in bench.plugins.asked].count("notify") == 1


async def test_a_refusal_that_is_read_late_is_a_refusal() -> None:
    bench = Bench(Reply(200, {}, b'{"errcode":310000}'), plugin=Mute(NotReady("in quarantine")))
    assert (await bench.refused()).again
    late = await bench.refused()
    assert (late.again, str(late)) == (False, "errcode 310000")
    assert len(bench.outbound.requests) == 1


async def test_what_the_service_took_counts_as_sent_when_no_verdict_comes_and_says_so() -> None:
    bench = Bench(OK, plugin=Mute(*[NotReady(f"no {KEY}")] * JUDGINGS))
    for _ in range(JUDGINGS - 1):
        await bench.refused()
    remark = await bench.notifier.send(NOTE)
    assert remark is not None
    assert remark.startswith("verdict unknown: the service answered 200")
    assert "canary" not in remark
    assert len(bench.outbound.requests) == 1


async def test_the_last_attempt_does_not_fail_what_the_service_took() -> None:
    bench = Bench(OK, plugin=Mute(NotReady("in quarantine")), attempts=1)
    assert "verdict unknown" in str(await bench.notifier.send(NOTE))


async def test_another_notification_starts_afresh_whatever_the_last_one_left() -> None:
    bench = Bench(OK, OK, plugin=Mute(NotReady("in quarantine")))
    await bench.refused()
    await bench.notifier.send(msgspec.structs.replace(NOTE, id="n2"))
    assert len(bench.outbound.requests) == 2


@pytest.mark.parametrize(("status", "again"), [(503, True), (404, False), (302, False)])
async def test_without_a_verdict_a_refusal_is_what_its_status_says(status: int, again: bool) -> None:
    bench = Bench(Reply(status, {}, b""), plugin=Mute(PluginTrapped(0, "trap")))
    failure = await bench.refused()
    assert (failure.again, str(failure)) == (again, f"the service answered {status}")


async def test_of_several_requests_those_that_were_taken_are_not_made_again() -> None:
    def two(args: dict[str, Any]) -> Any:
        if args["op"] == "judge":
            return {"ok": True}
        return {"actions": [{"http": {"url_ref": "url", "body": name}} for name in ("a", "b")]}

    bench = Bench(OK, Reply(503, {}, b""), OK, plugin=two)
    assert (await bench.refused()).again
    await bench.notifier.send(NOTE)
    assert [body for *_, body in bench.outbound.requests] == [b"a", b"b", b"b"]


async def test_the_rest_of_several_requests_leaves_after_a_late_verdict() -> None:
    mute = Mute(NotReady("in quarantine"))

    def two(args: dict[str, Any]) -> Any:
        if args["op"] == "judge":
            return mute(args)
        return {"actions": [{"http": {"url_ref": "url", "body": name}} for name in ("a", "b")]}

    bench = Bench(OK, OK, plugin=two)
    await bench.refused()
    await bench.notifier.send(NOTE)
    assert [body for *_, body in bench.outbound.requests] == [b"a", b"b"]


async def test_a_plugin_may_answer_only_so_much() -> None:
    bench = Bench(OK)
    await bench.notifier.send(NOTE)
    assert bench.plugins.most_bytes == [ANSWER_BYTES, VERDICT_BYTES]


async def test_a_secret_across_the_cut_of_a_reply_is_not_shown_in_part() -> None:
    for reply in (
        Reply(200, {}, b"x" * (CUT - 5) + KEY.encode() + b"y" * 100_000),
        Reply(200, {}, b"x" * 100 + KEY.encode()[:-1], cut=True),
    ):
        bench = Bench(reply)
        await bench.notifier.send(NOTE)
        assert "canary" not in bench.plugins.asked[-1]["body"]
        assert "x" * 100 in bench.plugins.asked[-1]["body"]


async def test_without_the_grant_nothing_is_called_and_the_error_says_which_key() -> None:
    bench = Bench()
    bench.plugins.grants["chat"] = frozenset({"log"})
    failure = await bench.refused()
    assert "[wasm.grants] chat" in str(failure)
    assert failure.again
    assert bench.plugins.asked == []
    assert "[wasm.grants] chat" in bench.notifier.problem()


async def test_a_channel_knows_beforehand_that_its_host_is_not_allowed() -> None:
    bench = Bench()
    assert bench.notifier.problem() == ""
    bench.outbound.refusals["https://h.example"] = ConfigError(f"add h.example to [outbound] allow; {URL}")
    assert "[outbound] allow" in bench.notifier.problem()
    assert "canary" not in bench.notifier.problem()
    bench.plugins.grants.clear()
    assert "no plugin" in bench.notifier.problem()


async def test_a_reply_is_judged_by_its_first_part_and_as_text() -> None:
    bench = Bench(Reply(200, {}, b"\xff\xfe" + b"x" * 100_000))
    await bench.notifier.send(NOTE)
    assert len(bench.plugins.asked[-1]["body"]) == 16 * 1024


def test_the_shipped_kind_comes_through_the_public_door() -> None:
    kinds = notifier_kinds(extension_manager([]))
    assert {name: (kind.config, kind.make) for name, kind in kinds.items()} == {
        "plugin": (PluginChannelConfig, PluginNotifier)
    }
