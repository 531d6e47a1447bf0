"""The shipped sinks as an extension: they come in by the same door as a stranger's."""

from __future__ import annotations

from gateway.extensions.hookspecs import SinkKind, hookimpl
from gateway.sinks.jsonl import JsonLinesConfig, JsonLinesSink


@hookimpl
def gateway_sink_kinds() -> dict[str, SinkKind]:
    """Offer `type = "jsonl"`."""
    return {"jsonl": SinkKind(JsonLinesConfig, JsonLinesSink)}
