"""The hooks: all that a native extension can do. A hook exists only where a shipped extension uses it.

Each is marked *notify* (many answers, all used) or *decide* (one answer, the first). Knows no room that calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pluggy

PROJECT: Final = "flux_gateway"
"""Name of the hooks' project and of the entry point group that extensions install themselves under."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class ListenerKind(msgspec.Struct, frozen=True):
    """A kind of listener: what `type = "..."` in `[listeners.NAME]` asks for.

    config: a msgspec struct with at least `port`, `product`, `framing` and `bind`; its docstring documents the keys.
    make: called as make(name, config, *, tenant_id, framing, sink, supervisor, clock); gives an object with
        `async start(host) -> (host, port)`, `async stop()`, `connections` and `samples()`.
    """

    config: type[msgspec.Struct]
    make: Callable[..., Any]


@hookspec
def gateway_listener_kinds() -> dict[str, ListenerKind]:  # type: ignore[empty-body]  # implementations answer
    """*Notify.* Offer kinds of listeners by the name that `type` uses; a name that is taken already stays as it was."""
