"""Limits and places of the rules room. Every bound stands here with its reason."""

from __future__ import annotations

import msgspec


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

    budget: int = 1_000_000
    cpu_ms: int = 100
    kill_after_ms: int = 400
    slice_ms: int = 100
    memory_bytes: int = 16 * 1024 * 1024
    source_bytes: int = 256 * 1024
    text_bytes: int = 1024 * 1024
    pattern_steps: int = 2_000_000
    depth: int = 16
    log_lines: int = 20
    log_line_bytes: int = 500
    answer_bytes: int = 32 * 1024 * 1024
    process_bytes: int = 2 * 1024 * 1024 * 1024


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
    commands: commands of rules in flight; over it they are refused and counted.
    command_timeout_s: when a rule names none.
    log_lines_per_s: log lines of one rule that reach the gateway's log.
    """

    directory: str = "scripts/rules"
    poll_s: float = 1.0
    files: int = 64
    queue_messages: int = 50_000
    queue_events: int = 10_000
    batch_messages: int = 512
    frame_bytes: int = 16 * 1024 * 1024
    state_bytes: int = 4096
    cached_states: int = 10_000
    actions: int = 64
    action_bytes: int = 64 * 1024
    strikes: int = 3
    strike_window_s: float = 60.0
    keep_s: float = 1.0
    outbox: int = 64
    commands: int = 256
    command_timeout_s: float = 10.0
    log_lines_per_s: float = 20.0
    limits: SandboxLimits = SandboxLimits()


class ScenesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scenes and schedules.

    directory, poll_s, files: as for rules.
    runs: runs at one time; each is a Lua coroutine of a few kilobytes.
    wait_s: longest `wait`; longer pauses are what schedules are for.
    args_bytes: arguments of a run, a command or its answer.
    run_log_lines: last lines that a run keeps.
    command_timeout_s: when a scene names none.
    catch_up_s: a schedule missed while the gateway was down runs at its start if it is not older than this.
    schedules: schedules of one tenant.
    """

    directory: str = "scripts/scenes"
    poll_s: float = 1.0
    files: int = 64
    runs: int = 1000
    wait_s: int = 86_400
    args_bytes: int = 64 * 1024
    run_log_lines: int = 100
    command_timeout_s: float = 10.0
    catch_up_s: float = 300.0
    schedules: int = 1000
    limits: SandboxLimits = SandboxLimits()
