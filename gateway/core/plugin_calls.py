"""The port to plugins that answer calls (crypto, notify, parser, algo, report), whatever runs them.

Knows neither wasmtime nor any plugin; the composition root puts the Wasm host behind it.
"""

from __future__ import annotations

from typing import Any, Protocol


class PluginCaller(Protocol):
    """Calls plugins by id."""

    async def call(
        self, plugin_id: str, args: dict[str, Any], *, timeout_s: float, most_bytes: int | None = None
    ) -> Any:
        """Hand a plugin plain arguments and return its plain answer; the loop goes on meanwhile.

        most_bytes: what the caller takes of MessagePack; a larger answer is a CodecError.
        Raises NotFound for a plugin that is not there, NotReady for one that does not run now or has no time, and
        CodecError (PluginTrapped included) where it refused the arguments or failed on them.
        """
        ...


class PluginGrants(Protocol):
    """What plugins may do."""

    def granted(self, plugin_id: str) -> frozenset[str]:
        """Capabilities that the manifest asks for and the operator grants. Raises NotFound, ConfigError."""
        ...
