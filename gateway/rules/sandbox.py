"""One guarded Lua runtime per script file, inside a worker process. Knows Lua and nothing of sockets.

Only numbers, booleans and byte strings cross into Lua and back; never a Python object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
from lupa import lua54

from gateway.core.flow import Event, Message
from gateway.rules.config import RulesConfig, SandboxLimits, ScenesConfig
from gateway.rules.wire import Slice

LuaError = lua54.LuaError

_CHUNKS: Final = {path.stem: path.read_bytes() for path in (Path(__file__).parent / "lua").glob("*.lua")}
_CLOSE_THE_DOOR: Final = b"python, package, debug, io, os, require, dofile, loadfile, collectgarbage = nil"
_SCALARS: Final = frozenset({float, int, bool, type(None)})
_SCALARS_AND_TEXT: Final = _SCALARS | {str}
_SHAPES: Final = 256
"""Message shapes with a compiled entry, per rule; a device that invents shapes only makes it compile again."""
_SHAPE_FIELDS: Final = 100
"""Fields up to which a message enters as arguments (Lua allows some 250); larger ones enter packed."""

PluginCall = Callable[[bytes, bytes], "bytes | None"]
"""Id and packed arguments in; MessagePack `[true, answer]` or `[false, text]` out, or None for one call too many.

It must never raise: the exception would be an object of Python in the hands of a script.
"""

Result = tuple[int, "bytes | None"] | tuple[int, "bytes | None", "bytes | None", int] | None
"""What a call answers: see `finish` in lua/rule.lua."""


def _refuse(_target: object, name: object, _setting: object) -> NoReturn:
    raise AttributeError(f"no attribute {name!r} for Lua")


class _Runtime:
    """A Lua runtime with the guard in place and an API loaded into it."""

    def __init__(self, limits: SandboxLimits) -> None:
        self.limits = limits
        self.lua = lua54.LuaRuntime(
            encoding=None,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_refuse,
            max_memory=limits.memory_bytes,
        )
        self.env, self.bounded, self.charge, self.watched = self._chunk(
            "guard", limits.budget, limits.cpu_ms / 1000, limits.text_bytes, limits.pattern_steps
        )
        self.encode, self.decode, self.line = self._chunk("pack", limits.depth)

    def plugin_calls(self, room: int) -> tuple[Any, Any]:
        """Two calls of Lua: one packs what a plugin is given, in at most so many bytes, one unpacks its answer."""
        packed, told = self._chunk("plugin", self.encode, self.decode, self.charge, room)
        return packed, told

    def api(self, chunk: str, *given: object) -> tuple[Any, ...]:
        """Load an API; the doors that it did not take are closed for good."""
        calls: tuple[Any, ...] = self._chunk(chunk, *given)
        self.lua.execute(_CLOSE_THE_DOOR)
        return calls

    def _chunk(self, name: str, *given: object) -> Any:
        return self.lua.execute(_CHUNKS[name], *given)


class RuleSandbox:
    """One rule file."""

    def __init__(self, config: RulesConfig, call_plugin: PluginCall = lambda _id, _args: None) -> None:
        """Have an empty runtime; without a `call_plugin`, every call of a plugin is one too many."""
        limits = config.limits
        runtime = _Runtime(limits)
        (self._start, self._on_message, self._on_packed, self._on_event, self._set_state, self.set_now) = runtime.api(
            "rule",
            runtime.env,
            runtime.bounded,
            runtime.encode,
            runtime.decode,
            runtime.line,
            config.state_bytes,
            config.actions,
            config.action_bytes,
            limits.log_lines,
            limits.log_line_bytes,
            *runtime.plugin_calls(config.plugin_bytes),
            call_plugin,
            config.plugin_calls,
        )
        self._lua = runtime.lua
        self._shapes: dict[tuple[str, ...], Any] = {}

    def load(self, source: bytes, name: str) -> tuple[str, bytes]:
        """Run the file; returns the error, or "" and what it declares."""
        return _loaded(self._start, source, name)

    def set_state(self, device: str, data: bytes | None) -> None:
        """Let the rule remember a device from now on."""
        self._set_state(device.encode(), data)

    def on_message(self, handler: int, message: Message) -> Result:
        """Call a message handler."""
        quality = msgspec.msgpack.encode(message.quality) if message.quality else None
        values = message.values
        kinds = set(map(type, values.values()))
        scalars: Iterable[Any] = values.values()
        if not kinds <= _SCALARS:
            if not kinds <= _SCALARS_AND_TEXT:
                return self._packed(handler, message, quality)
            scalars = [value.encode() if value.__class__ is str else value for value in scalars]
        if len(values) > _SHAPE_FIELDS:
            return self._packed(handler, message, quality)
        enter = self._shapes.get((message.product_id, *values)) or self._shape(message.product_id, *values)
        result: Result = enter(
            handler, message.device_id.encode(), message.observed_at_ms, message.received_at_ms, quality, *scalars
        )
        return result

    def on_event(self, handler: int, event: Event) -> Result:
        """Call an event handler."""
        device = (event.device_id or "").encode()
        result: Result = self._on_event(
            handler, device, event.type.encode(), event.at_ms, msgspec.msgpack.encode(event.data)
        )
        return result

    def _packed(self, handler: int, message: Message, quality: bytes | None) -> Result:
        result: Result = self._on_packed(
            handler,
            message.device_id.encode(),
            message.product_id.encode(),
            message.observed_at_ms,
            message.received_at_ms,
            quality,
            msgspec.msgpack.encode(message.values),
        )
        return result

    def _shape(self, product: str, *keys: str) -> Any:
        """Compile the entry for messages of one product with these properties: far cheaper than filling a table."""
        names = [f"v{index}" for index in range(len(keys))]
        fields = ", ".join(f'["{_escaped(key)}"] = {name}' for key, name in zip(keys, names, strict=True))
        arguments = ", ".join(["handler", "device", "observed_at", "received_at", "quality", *names])
        source = (
            f"local on_message = ... return function({arguments}) return on_message(handler, device,"
            f' "{_escaped(product)}", observed_at, received_at, quality, {{ {fields} }}) end'
        )
        if len(self._shapes) >= _SHAPES:
            self._shapes.clear()
        enter = self._shapes[product, *keys] = self._lua.execute(source.encode(), self._on_message)
        return enter


class SceneSandbox:
    """One scene file with its runs."""

    def __init__(self, config: ScenesConfig) -> None:
        """Have an empty runtime."""
        limits = config.limits
        runtime = _Runtime(limits)
        self._start, self._begin, self._continue, self._drop = runtime.api(
            "scene",
            runtime.env,
            runtime.bounded,
            runtime.watched,
            runtime.encode,
            runtime.decode,
            runtime.line,
            config.wait_s,
            config.args_bytes,
            limits.log_lines,
            limits.log_line_bytes,
            *runtime.plugin_calls(config.args_bytes),
        )

    def load(self, source: bytes, name: str) -> tuple[str, bytes]:
        """Run the file; returns the error, or "" and what it declares."""
        return _loaded(self._start, source, name)

    def begin(self, run: str, now_ms: int, args: bytes) -> Slice:
        """Start a run."""
        return _slice(*self._begin(run.encode(), now_ms, args))

    def resume(self, run: str, now_ms: int, result: bytes) -> Slice:
        """Go on with a run."""
        return _slice(*self._continue(run.encode(), now_ms, result))

    def drop(self, run: str) -> None:
        """Forget a run."""
        self._drop(run.encode())


def _loaded(start: Any, source: bytes, name: str) -> tuple[str, bytes]:
    try:
        answer: bytes | tuple[None, bytes] = start(source, name.encode())
    except LuaError as failure:  # no memory even for the error
        return shown(str(failure)), b""
    return ("", answer[1]) if isinstance(answer, tuple) else (shown(answer), b"")


def _slice(outcome: bytes, argument: Any, _overrun: object, log: bytes) -> Slice:
    lines = [shown(line) for line in log.split(b"\n")] if log else []
    match outcome:
        case b"wait":
            return Slice("wait", seconds=argument, log=lines)
        case b"ask":
            return Slice("ask", asked=argument, log=lines)
        case b"done":
            return Slice("done", log=lines)
        case _:
            return Slice("failed", error=shown(argument), log=lines)


def shown(text: bytes | str) -> str:
    """An error of Lua as bounded text."""
    return (text.decode(errors="replace") if isinstance(text, bytes) else text)[:500]


def _escaped(text: str) -> str:
    return "".join(f"\\{byte:03d}" for byte in text.encode())
