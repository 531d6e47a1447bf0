"""Limits and places of the rules room. Every bound stands here with its reason."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=10**15)]
Bytes: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=64 * 1024**3)]
Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=3_600_000)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0.01, le=31_536_000)]


class SandboxLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one Lua file may use.

    budget: instructions of one call; a rule that decides needs some hundreds, a million are about 20 ms.
    cpu_ms: CPU time of one call, for work that costs few instructions (long strings).
    kill_after_ms: wall time of one call after which the worker is killed; catches what the guards do not see, and
        leaves room under the second in which a neighbour must be served again.
    slice_ms: wall time after which a batch is answered in part, so that its results do not wait for its end.
    memory_bytes: Lua memory of one file; every file has a runtime of its own, so a hoarder starves only itself.
    source_bytes: size of a file; the compiler runs without a budget.
    text_bytes: longest text that a library call may build.
    pattern_steps: worst case of one pattern match; two million are about 20 ms.
    depth: nesting of values that leave the sandbox.
    log_lines, log_line_bytes: log of one call; more lines are counted and dropped.
    answer_bytes: one answer of the worker; it ends a batch early when half of that is full.
    process_bytes: address space of the worker over what it starts with, the last wall behind `memory_bytes`.
    """

    budget: Count = 1_000_000
    cpu_ms: Milliseconds = 100
    kill_after_ms: Milliseconds = 400
    slice_ms: Milliseconds = 100
    memory_bytes: Annotated[int, msgspec.Meta(ge=1024**2, le=64 * 1024**3)] = 16 * 1024 * 1024
    source_bytes: Bytes = 256 * 1024
    text_bytes: Bytes = 1024 * 1024
    pattern_steps: Count = 2_000_000
    depth: Annotated[int, msgspec.Meta(ge=1, le=100)] = 16
    log_lines: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 20
    log_line_bytes: Bytes = 500
    answer_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024, le=1024**3)] = 32 * 1024 * 1024
    process_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024**2, le=1024**4)] = 2 * 1024 * 1024 * 1024


class RulesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules.

    directory: where `*.lua` rule files are; relative to the configuration file.
    poll_s: how often the directory is looked at.
    files: rule files; each may hold `limits.memory_bytes`.
    queue_messages, queue_events: what may wait for the worker; over it the oldest are shed and counted.
    batch_messages: messages of one exchange; 512 reach the worker's full rate.
    frame_bytes: largest exchange; a batch that is larger is halved.
    state_bytes: what one rule may remember of one device.
    cached_states: device states of one rule that the worker holds; the gateway holds them all.
    actions, action_bytes: actions of one call, by number and by size.
    strikes, strike_window_s: so many hangs, crashes or overruns within the window stop a rule.
    keep_s: how long a change of state that came without an alarm may wait to be written.
    outbox: batches of effects that may wait for the database; over it evaluation waits.
    plugin_calls, plugin_ms, plugin_bytes: what one call may ask of plugins: how often, how long it may wait for them in
        all (the other rules wait with it), and the size of the arguments and of the answer of each.
    commands: commands of rules in flight; over it they are refused and counted.
    command_timeout_s: when a rule names none.
    log_lines_per_s: log lines of one rule that reach the gateway's log.
    """

    directory: str = "scripts/rules"
    poll_s: Seconds = 1.0
    files: Count = 64
    queue_messages: Count = 50_000
    queue_events: Count = 10_000
    batch_messages: Count = 512
    frame_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1024**3)] = 16 * 1024 * 1024
    state_bytes: Bytes = 4096
    cached_states: Count = 10_000
    actions: Count = 64
    action_bytes: Bytes = 64 * 1024
    strikes: Count = 3
    strike_window_s: Seconds = 60.0
    keep_s: Seconds = 1.0
    outbox: Count = 64
    plugin_calls: Count = 8
    plugin_ms: Milliseconds = 200
    plugin_bytes: Bytes = 256 * 1024
    commands: Count = 256
    command_timeout_s: Annotated[float, msgspec.Meta(ge=0.01, le=3600)] = 10.0
    log_lines_per_s: Annotated[float, msgspec.Meta(ge=1, le=1_000_000)] = 20.0
    limits: SandboxLimits = SandboxLimits()


class ScenesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scenes and schedules.

    directory, poll_s, files: as for rules.
    runs: runs at one time; each is a Lua coroutine of a few kilobytes.
    wait_s: longest `wait`; longer pauses are what schedules are for.
    args_bytes: arguments of a run, of a command or a plugin, and what they answer.
    run_log_lines: last lines that a run keeps.
    command_timeout_s, plugin_timeout_s: when a scene names none.
    catch_up_s: a schedule missed while the gateway was down runs at its start if it is not older than this.
    schedules: schedules of one tenant.
    """

    directory: str = "scripts/scenes"
    poll_s: Seconds = 1.0
    files: Count = 64
    runs: Count = 1000
    wait_s: Annotated[int, msgspec.Meta(ge=1, le=31_536_000)] = 86_400
    args_bytes: Bytes = 64 * 1024
    run_log_lines: Count = 100
    command_timeout_s: Annotated[float, msgspec.Meta(ge=0.01, le=3600)] = 10.0
    plugin_timeout_s: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 10.0
    catch_up_s: Annotated[float, msgspec.Meta(ge=0, le=31_536_000)] = 300.0
    schedules: Count = 1000
    limits: SandboxLimits = SandboxLimits()
