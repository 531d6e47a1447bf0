"""Delivers by a notify plugin: the plugin writes requests as data, the host fills in secrets and sends them.

Knows the outbound port and the port to plugins. What a plugin is given holds no secret: neither the message, nor a
reply that it judges.
"""

from __future__ import annotations

import email.utils
from http import HTTPStatus
from typing import Any, Final

from typing_extensions import override

from gateway.core.clock import Clock, rfc3339
from gateway.core.errors import ConfigError, GatewayError, NotReady
from gateway.core.outbound import Outbound, Reply
from gateway.core.plugin_calls import PluginCaller, PluginGrants
from gateway.notify.actions import requests_of, verdict_of
from gateway.notify.config import PluginChannelConfig
from gateway.notify.expressions import Secrets
from gateway.notify.model import Notification, Notifier, Undelivered

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

    @override
    async def send(self, notification: Notification) -> None:
        try:
            await self._send(notification)
        except Undelivered:
            raise
        except GatewayError as failure:
            text = self._secrets.redact(str(failure))
            raise Undelivered(text, again=isinstance(failure, NotReady)) from failure

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

    async def _send(self, notification: Notification) -> None:
        self._require_grant()
        answer = await self._call({"op": "notify", "message": _message(notification), "now_ms": self._clock.now_ms()})
        requests = requests_of(answer, self._secrets)
        for request in requests:
            self._outbound.check(request.url)  # all of them before the first leaves
        for request in requests:
            method, url, headers, body = request
            reply = await self._outbound.request(
                method, url, headers=headers, body=body, timeout_s=self._config.timeout_s
            )
            await self._judge(reply)

    async def _judge(self, reply: Reply) -> None:
        """Return where the service took the message, else raise Undelivered.

        The status has the last word: nothing but 2xx is a success, whatever the plugin makes of it.
        """
        body = self._secrets.redact(reply.body[:_JUDGED_BYTES].decode(errors="replace"))
        verdict = verdict_of(await self._call({"op": "judge", "status": reply.status, "body": body}))
        if verdict.ok and reply.status // 100 == 2:
            return
        text = verdict.error or f"the service answered {reply.status}"
        waits = [wait for wait in (verdict.retry_after_s, self._retry_after_s(reply)) if wait is not None]
        again = verdict.retry_after_s is not None or reply.status in _AGAIN or reply.status >= 500
        raise Undelivered(self._secrets.redact(text), again=again, retry_after_s=max(waits, default=None))

    def _retry_after_s(self, reply: Reply) -> float | None:
        """The header `Retry-After` in seconds. Source: RFC 9110, 10.2.3."""
        text = reply.headers.get("retry-after", "")
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            at = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        return max(0.0, at.timestamp() - self._clock.now_ms() / 1000)

    async def _call(self, args: dict[str, Any]) -> Any:
        asked = {"channel": self._channel, **args}
        return await self._plugins.call(self._config.plugin, asked, timeout_s=self._config.timeout_s)

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
