"""`[notify.NAME]`: what every channel has, whatever delivers it, and the channel that a plugin delivers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from typing_extensions import override

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=604_800)]


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a channel delivers; every kind of channel has these keys beside its own.

    queue: notifications that may wait; over it a further one is refused (policy: reject) and counted, so that a storm
        of rules neither fills the database nor holds alarms up.
    rate_per_min: requests within any 60 s (attempts, of a channel that makes none through the gateway); robots of chat
        services block for minutes who sends more than 20.
    attempts: attempts at one notification before it is given up as failed.
    first_retry_s, most_retry_s: wait after a failure, doubled from the first to the most, less up to half by chance.
    expire_s: a notification that waited for so long is not delivered any more.
    timeout_s: of one attempt; what the pace holds back does not count.
    """

    queue: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 500
    rate_per_min: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 20
    attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    first_retry_s: _Seconds = 2.0
    most_retry_s: _Seconds = 600.0
    expire_s: _Seconds = 86_400.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 15.0


class PluginChannelConfig(ChannelConfig, frozen=True, kw_only=True, tag_field="type", tag="plugin"):
    """A channel that a notify plugin delivers.

    plugin: its id; the plugin needs the grant `emit`.
    secrets: what the plugin may name but never sees, each by reference: `url = { env = "NAME" }`. The shipped plugins
        send to `url`, and sign with `key` where it is set.
    args: settings that the plugin does see; its README names them.
    """

    plugin: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    secrets: dict[str, Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]] = {}
    args: dict[str, Any] = {}

    @override
    def __repr__(self) -> str:
        """Without the values of secrets."""
        return f"PluginChannelConfig(plugin={self.plugin!r}, secrets={sorted(self.secrets)})"
