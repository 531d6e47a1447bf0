"""Delivers by a notify plugin: the plugin writes requests as data, the host fills in secrets and sends them.

Knows the outbound port and the port to plugins. What a plugin is given holds no secret: neither the message, nor a
reply that it judges.
"""

from __future__ import annotations

import email.utils
from datetime import UTC
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec
from typing_extensions import override

from gateway.core.clock import Clock, rfc3339
from gateway.core.errors import ConfigError, GatewayError
from gateway.core.outbound import Outbound, Reply
from gateway.core.plugin_calls import PluginCaller, PluginGrants
from gateway.notify.actions import ANSWER_BYTES, VERDICT_BYTES, Verdict, requests_of, verdict_of
from gateway.notify.config import PluginChannelConfig
from gateway.notify.expressions import Secrets
from gateway.notify.model import Notification, Notifier, Undelivered, may_pass

JUDGINGS: Final = 5
"""Times that a plugin is asked to judge a reply with 2xx before its message counts as sent, with a remark."""
_JUDGE_S: Final = 5.0
"""Time of one judging: milliseconds, but a plugin that is exchanged or restarted needs longer."""
_JUDGED_BYTES: Final = 16 * 1024
"""Of a reply that the plugin sees; services answer some hundred bytes."""
_AGAIN: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.LOCKED,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
"""Refusals that do not last; so does no status from 500 on."""


class _Shown(NamedTuple):
    """What a plugin sees of a reply, and what the gateway goes by."""

    status: int
    body: str
    retry_after_s: float | None


class _Progress(msgspec.Struct):
    """How far one notification came, so that no attempt repeats what the service took.

    asked, taken: its requests. reply: of the request after those taken, not judged yet. remark: on what was taken.
    """

    id: str
    asked: int = 0
    taken: int = 0
    reply: _Shown | None = None
    judgings: int = 0
    remark: str = ""


class PluginNotifier(Notifier):
    """One channel of `type = "plugin"`."""

    def __init__(
        self,
        name: str,
        config: PluginChannelConfig,
        *,
        outbound: Outbound,
        plugins: PluginCaller,
        grants: PluginGrants,
        clock: Clock,
    ) -> None:
        """Ask nobody yet."""
        self._config = config
        self._secrets = Secrets(config.secrets)
        self._channel = {"name": name, "args": config.args, "secrets": self._secrets.names}
        self._outbound = outbound
        self._plugins = plugins
        self._grants = grants
        self._clock = clock
        self._progress = _Progress("")

    @override
    async def send(self, notification: Notification) -> str | None:
        if self._progress.id != notification.id:
            self._progress = _Progress(notification.id)
        try:
            await self._send(notification, self._progress)
        except Undelivered:
            raise
        except GatewayError as failure:
            raise Undelivered(self._secrets.redact(str(failure)), again=may_pass(failure)) from failure
        return self._progress.remark or None

    @override
    def problem(self) -> str:
        try:
            self._require_grant()
            for name in self._secrets.names:
                if "://" in self._secrets.value(name):
                    self._outbound.check(self._secrets.value(name))
        except GatewayError as failure:
            return self._secrets.redact(str(failure))
        return ""

    async def _send(self, notification: Notification, progress: _Progress) -> None:
        self._require_grant()
        last = notification.attempts + 1 >= self._config.attempts
        if progress.reply is not None:
            await self._judge(progress, progress.reply, last=last)
            if progress.taken == progress.asked:
                return
        told = {"op": "notify", "message": _message(notification), "now_ms": self._clock.now_ms()}
        requests = requests_of(await self._call(told, self._config.timeout_s, ANSWER_BYTES), self._secrets)
        for request in requests:
            self._outbound.check(request.url)  # all of them before the first leaves
        progress.asked = len(requests)
        for method, url, headers, body in requests[progress.taken :]:
            reply = await self._outbound.request(
                method, url, headers=headers, body=body, timeout_s=self._config.timeout_s
            )
            progress.reply = self._shown(reply)
            await self._judge(progress, progress.reply, last=last)

    async def _judge(self, progress: _Progress, reply: _Shown, *, last: bool) -> None:
        """Return where the service took the message, else raise Undelivered.

        The status has the last word: nothing but 2xx is a success, whatever the plugin makes of it. A message that was
        taken is not sent again because the plugin cannot say so: it is asked again, `JUDGINGS` times.
        """
        accepted = reply.status // 100 == 2
        progress.judgings += 1
        asked = {"op": "judge", "status": reply.status, "body": reply.body}
        try:
            most_s = min(self._config.timeout_s, _JUDGE_S)
            verdict = verdict_of(await self._call(asked, most_s, VERDICT_BYTES))
        except GatewayError as failure:
            if not accepted:
                verdict = Verdict(ok=False)  # the status says enough
            elif not may_pass(failure):
                raise
            elif progress.judgings < JUDGINGS and not last:
                text = f"the service answered {reply.status}; the plugin cannot judge it yet: {failure}"
                raise Undelivered(self._secrets.redact(text), again=True) from failure
            else:
                text = (
                    f"verdict unknown: the service answered {reply.status}, and the plugin cannot judge it: {failure}"
                )
                progress.remark = self._secrets.redact(text)
                verdict = Verdict(ok=True)
        progress.reply, progress.judgings = None, 0
        if verdict.ok and accepted:
            progress.taken += 1
            return
        text = verdict.error or f"the service answered {reply.status}"
        waits = [wait for wait in (verdict.retry_after_s, reply.retry_after_s) if wait is not None]
        again = verdict.retry_after_s is not None or reply.status in _AGAIN or reply.status >= 500
        raise Undelivered(self._secrets.redact(text), again=again, retry_after_s=max(waits, default=None))

    def _shown(self, reply: Reply) -> _Shown:
        body = self._secrets.excerpt(reply.body, _JUDGED_BYTES, cut=reply.cut)
        return _Shown(reply.status, body, self._retry_after_s(reply))

    def _retry_after_s(self, reply: Reply) -> float | None:
        """The header `Retry-After` in seconds. Source: RFC 9110, 10.2.3."""
        text = reply.headers.get("retry-after", "")
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            at = email.utils.parsedate_to_datetime(text)
            # Without a zone it would be read as this machine's.
            at_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
        return max(0.0, at_s - self._clock.now_ms() / 1000)

    async def _call(self, args: dict[str, Any], timeout_s: float, most_bytes: int) -> Any:
        asked = {"channel": self._channel, **args}
        return await self._plugins.call(self._config.plugin, asked, timeout_s=timeout_s, most_bytes=most_bytes)

    def _require_grant(self) -> None:
        plugin = self._config.plugin
        if "emit" not in self._grants.granted(plugin):
            raise ConfigError(
                f"plugin {plugin} may not send: its manifest must ask for `emit`, and [wasm.grants] {plugin} grant it"
            )


def _message(notification: Notification) -> dict[str, Any]:
    return {
        "id": notification.id,
        "title": notification.title,
        "text": notification.text,
        "severity": notification.severity,
        "device": notification.device_id,
        "at": rfc3339(notification.created_at_ms),
        "link": notification.link,
    }
