"""A script calls a plugin: what came of it as data for the script, whatever went wrong. Knows neither Lua nor Wasm."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.errors import GatewayError
from gateway.core.log import safe_text
from gateway.rules.model import RuleEffects
from gateway.rules.wire import CallPlugin, PluginTold, encoder

_ERROR_CHARS = 500
_args_decoder = msgspec.msgpack.Decoder(dict[str, Any])


class PluginCalls:
    """Calls of the scripts of one host, with what became of them."""

    def __init__(self, effects: RuleEffects, most_bytes: int) -> None:
        """`most_bytes` bounds an answer."""
        self._effects = effects
        self._most_bytes = most_bytes
        self.made = 0
        self.failed = 0

    async def for_rule(self, asked: CallPlugin) -> PluginTold:
        """Serve a rule that waits in its worker."""
        try:
            args = _args_decoder.decode(asked.args)
        except msgspec.MsgspecError as failure:
            return PluginTold(self._none(str(failure)))
        return PluginTold(await self.answer(asked.plugin, args, asked.timeout_ms / 1000))

    async def answer(self, plugin: str, args: dict[str, Any], timeout_s: float) -> bytes:
        """MessagePack `[true, answer]`, or `[false, why there is none]`; never raises for a plugin's failure."""
        self.made += 1
        try:
            result = await self._effects.call_plugin(plugin, args, timeout_s, self._most_bytes)
            return encoder.encode((True, result))
        except GatewayError as failure:
            return self._none(str(failure))
        except (TypeError, ValueError, OverflowError, RecursionError) as failure:
            return self._none(f"the plugin's answer cannot be carried: {failure}")

    def _none(self, why: str) -> bytes:
        self.failed += 1
        return encoder.encode((False, safe_text(why, _ERROR_CHARS)))
