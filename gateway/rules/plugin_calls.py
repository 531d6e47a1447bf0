"""A script calls a plugin: what came of it as data for the script, whatever went wrong. Knows neither Lua nor Wasm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from gateway.core.clock import Clock
from gateway.core.errors import GatewayError
from gateway.core.log import safe_text
from gateway.rules.config import RulesConfig
from gateway.rules.model import RuleEffects
from gateway.rules.wire import CallPlugin, PluginTold, encoder

log = structlog.get_logger(__name__)

_ERROR_CHARS = 500
_LATE = 0.5
"""Share of what a rule may wait in one call, from which on a plugin was late."""
_LATE_TIMES = 3
"""Times in a row after which a plugin is not asked for `_REST_S`; one more after that, and it rests again."""
_REST_S = 10.0
_args_decoder = msgspec.msgpack.Decoder(dict[str, Any])


class PluginCalls:
    """Calls of the scripts of one host, with what became of them."""

    def __init__(self, effects: RuleEffects, most_bytes: int) -> None:
        """`most_bytes` bounds an answer."""
        self._effects = effects
        self._most_bytes = most_bytes
        self.made = 0
        self.failed = 0

    async def answer(self, plugin: str, args: dict[str, Any], timeout_s: float) -> bytes:
        """MessagePack `[true, answer]`, or `[false, why there is none]`; never raises for a plugin's failure."""
        self.made += 1
        try:
            result = await self._effects.call_plugin(plugin, args, timeout_s, self._most_bytes)
            return encoder.encode((True, result))
        except GatewayError as failure:
            return self.none(str(failure))
        except (TypeError, ValueError, OverflowError, RecursionError) as failure:
            return self.none(f"the plugin's answer cannot be carried: {failure}")

    def none(self, why: str) -> bytes:
        """Count a call that gave nothing, and say why."""
        self.failed += 1
        return encoder.encode((False, safe_text(why, _ERROR_CHARS)))


class RulePluginCalls(PluginCalls):
    """Calls of rules, which wait in their worker and hold the others up: a plugin that is slow again and again rests.

    The plugin need not be at fault: it may be made for those who have more time.
    """

    def __init__(self, effects: RuleEffects, config: RulesConfig, clock: Clock) -> None:
        """Let every plugin be asked."""
        super().__init__(effects, config.plugin_bytes)
        self._late_s = config.plugin_ms / 1000 * _LATE
        self._clock = clock
        self._slow: dict[str, _Slow] = {}

    async def for_rule(self, asked: CallPlugin) -> PluginTold:
        """Serve a rule that waits in its worker."""
        began_s = self._clock.monotonic_s()
        slow = self._slow.get(asked.plugin)
        if slow is not None and began_s < slow.rests_until_s:
            left_s = slow.rests_until_s - began_s
            return PluginTold(
                self.none(f"plugin {asked.plugin} kept rules waiting; it is asked again in {left_s:.0f} s")
            )
        try:
            args = _args_decoder.decode(asked.args)
        except msgspec.MsgspecError as failure:
            return PluginTold(self.none(str(failure)))
        answer = await self.answer(asked.plugin, args, asked.timeout_ms / 1000)
        self._note(asked.plugin, self._clock.monotonic_s() - began_s)
        return PluginTold(answer)

    def _note(self, plugin: str, waited_s: float) -> None:
        if waited_s < self._late_s:
            self._slow.pop(plugin, None)
            return
        slow = self._slow.setdefault(plugin, _Slow())
        slow.times += 1
        if slow.times >= _LATE_TIMES:
            slow.rests_until_s = self._clock.monotonic_s() + _REST_S
            log.warning("a plugin keeps rules waiting: they do without", plugin=safe_text(plugin), for_s=_REST_S)


@dataclass(slots=True)
class _Slow:
    """A plugin that was late the last `times` times."""

    times: int = 0
    rests_until_s: float = 0.0
