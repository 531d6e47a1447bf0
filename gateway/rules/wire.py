"""What the gateway and its Lua workers say to each other: length-prefixed MessagePack over a socket pair.

Knows neither sockets nor Lua. A worker is told once what it serves (`ServeRules`, `ServeScenes`); then each request has
one answer, and there is one request at a time; in the middle of an Evaluate the worker may ask back for plugins.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Literal, TypeAlias

import msgspec

from gateway.core.flow import Event, Message, Severity
from gateway.rules.config import RulesConfig, ScenesConfig

LENGTH: Final = struct.Struct("<I")
"""Prefix of every frame: its length without the prefix."""

HEARTBEAT_SLOTS: Final = 3
"""Shared memory of 64-bit slots: id of the file whose code runs (0: none), the item it works on, calls so far."""

EMPTY_STATE: Final = b"\x80"
"""State of a rule that remembers nothing."""

Plan: TypeAlias = tuple[tuple[int, int], ...]
"""Who gets an item: (id of the rule, number of its handler from 1)."""


class ServeRules(msgspec.Struct, tag=True):
    """First frame to a worker of rules."""

    config: RulesConfig


class ServeScenes(msgspec.Struct, tag=True):
    """First frame to a worker of scenes."""

    config: ScenesConfig


class Load(msgspec.Struct, tag=True):
    """Compile a file under a new id; `name` stands in its errors. Answer: Loaded."""

    id: int
    name: str
    source: bytes


class Unload(msgspec.Struct, tag=True):
    """Forget a file. Answer: Done."""

    id: int


class KnownState(msgspec.Struct, array_like=True, gc=False):
    """What a rule remembers of a device. To a worker: one that it does not have, or EMPTY_STATE to forget it."""

    rule: int
    device: str
    data: bytes


class Evaluate(msgspec.Struct, tag=True):
    """Evaluate items in order; `plan_of[i]` is the index in `plans` for the i-th. Answer: Evaluated."""

    now_ms: int
    plans: list[Plan]
    plan_of: list[int]
    states: list[KnownState]
    messages: list[Message] = []
    events: list[Event] = []


class StartRun(msgspec.Struct, tag=True):
    """Start a run of a scene; `args` is a MessagePack map. Answer: Slice."""

    id: int
    run: str
    now_ms: int
    args: bytes


class ResumeRun(msgspec.Struct, tag=True):
    """Go on with a run; `result` is what its request came to. Answer: Slice."""

    run: str
    now_ms: int
    result: bytes


class DropRun(msgspec.Struct, tag=True):
    """Forget a run. Answer: Done."""

    run: str


class PluginTold(msgspec.Struct, tag=True):
    """To a worker that waits for a plugin: MessagePack `[true, answer]`, or `[false, why there is none]`."""

    answer: bytes


Greeting: TypeAlias = ServeRules | ServeScenes
Request: TypeAlias = Load | Unload | Evaluate | StartRun | ResumeRun | DropRun


class Loaded(msgspec.Struct, tag=True):
    """What became of a Load: an error, or what the file declares as a MessagePack map."""

    error: str = ""
    declared: bytes = b""


class Done(msgspec.Struct, tag=True):
    """Answer without content."""


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """What one call asked for: actions and log lines as a MessagePack array."""

    rule: int
    item: int
    actions: bytes | None
    dropped_lines: int


class Fault(msgspec.Struct, array_like=True, gc=False):
    """A call that failed. An overrun spent the budget, the CPU time or the memory, and reset the rule's runtime.

    reload_error: the file did not load again; the rule is gone from the worker.
    """

    rule: int
    item: int
    overrun: bool
    text: str
    actions: bytes | None = None
    reload_error: str = ""


class Evaluated(msgspec.Struct, tag=True):
    """Results of the first `done` items; the rest was not touched.

    calls: per rule. states: what changed, once per rule and device, as the last call left it.
    """

    done: int
    calls: dict[int, int]
    states: list[KnownState]
    outcomes: list[Outcome]
    faults: list[Fault]


class Slice(msgspec.Struct, tag=True):
    """A run ran until it waits for `seconds`, asks for something (`Asked` as MessagePack), or ends."""

    outcome: Literal["wait", "ask", "done", "failed"]
    seconds: float = 0.0
    asked: bytes = b""
    error: str = ""
    log: list[str] = []


class Refused(msgspec.Struct, tag=True):
    """The worker could not do what was asked, without any script being at fault."""

    error: str


class CallPlugin(msgspec.Struct, tag=True):
    """A rule calls a plugin: said in the middle of an Evaluate, which goes on with the PluginTold that follows.

    args: a MessagePack map. timeout_ms: what is left to this call of the rule for waiting.
    """

    rule: int
    plugin: str
    args: bytes
    timeout_ms: int


Answer: TypeAlias = Loaded | Done | Evaluated | Slice | Refused


class RaiseAlarm(msgspec.Struct, tag_field="type", tag="raise"):
    """`alarm.raise{...}`."""

    severity: Severity
    message: str
    data: dict[str, Any] = {}


class ClearAlarm(msgspec.Struct, tag_field="type", tag="clear"):
    """`alarm.clear()`."""


class SendCommand(msgspec.Struct, tag_field="type", tag="command"):
    """`device.command{...}` of a rule, `command(...)` of a scene."""

    device: str
    name: str
    args: dict[str, Any] = {}
    timeout_s: float | None = None


class RunScene(msgspec.Struct, tag_field="type", tag="scene"):
    """`scene.run{...}` of a rule."""

    name: str
    args: dict[str, Any] = {}


class Notify(msgspec.Struct, tag_field="type", tag="notify"):
    """`notify{...}` of a rule, `notify(channel, {...})` of a scene."""

    channel: str
    title: str
    text: str = ""
    severity: Severity = "info"


class AskPlugin(msgspec.Struct, tag_field="type", tag="plugin"):
    """`plugin.call(...)` of a scene."""

    plugin: str
    args: dict[str, Any] = {}
    timeout_s: float | None = None


class AskReport(msgspec.Struct, tag_field="type", tag="report"):
    """`report.run{...}` of a scene."""

    plugin: str
    device: str
    property: str
    from_ms: int
    to_ms: int
    args: dict[str, Any] = {}


class LogLine(msgspec.Struct, tag_field="type", tag="log"):
    """`log.info(...)` and its like."""

    level: Literal["info", "warning", "error"]
    text: str


Action: TypeAlias = RaiseAlarm | ClearAlarm | SendCommand | RunScene | Notify | LogLine


Asked: TypeAlias = SendCommand | AskPlugin | AskReport | Notify


class Declared(msgspec.Struct):
    """What a rule or scene file says of itself."""

    name: str = ""
    description: str = ""
    subscriptions: list[dict[str, str]] = []


greeting_decoder: Final = msgspec.msgpack.Decoder(Greeting)
request_decoder: Final = msgspec.msgpack.Decoder(Request)
answer_decoder: Final = msgspec.msgpack.Decoder(Answer | CallPlugin)
told_decoder: Final = msgspec.msgpack.Decoder(PluginTold)
actions_decoder: Final = msgspec.msgpack.Decoder(list[Action])
asked_decoder: Final = msgspec.msgpack.Decoder(Asked)
declared_decoder: Final = msgspec.msgpack.Decoder(Declared)
state_decoder: Final = msgspec.msgpack.Decoder(dict[str, Any])
encoder: Final = msgspec.msgpack.Encoder()
