"""The scene host: runs of scenes, each a Lua coroutine in the worker that goes on slice by slice.

A run between slices is a timer or a command in flight: it holds no thread. A run never ends silently: what a kill or a
stop cuts is `failed` and says so.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import structlog

from gateway.core.clock import Clock
from gateway.core.errors import Conflict, GatewayError, NotFound, NotReady, Rejected, StorageFailed
from gateway.core.ids import new_id
from gateway.core.log import safe_text
from gateway.core.metrics import Sample
from gateway.core.scope import DEFAULT_TENANT, Scope
from gateway.core.tasks import Supervisor
from gateway.rules.config import ScenesConfig
from gateway.rules.model import Notice, RuleEffects, SceneRepository, SceneRun, SceneStatus, WantedReport
from gateway.rules.plugin_calls import PluginCalls
from gateway.rules.process import WorkerLost
from gateway.rules.scene_scripts import SceneScripts
from gateway.rules.wire import Asked, AskPlugin, AskReport, Notify, SendCommand, Slice, asked_decoder, encoder

log = structlog.get_logger(__name__)

_ERROR_CHARS = 500
_SAVE_TRIES = 5
_SAVE_FIRST_S = 0.2
_STOP_S = 5.0
"""Time at a stop for the open runs to be saved as failed."""
_SLICES_PER_S = 50
"""Slices that a run may take for long; a scene that pauses takes some ten, one that commands without end far more."""
_SLICES_AT_ONCE = 5 * _SLICES_PER_S
"""Slices that a run which paused before may take in a row, such as a command to each of many devices."""
_SAVED_SLEEP_S = 1.0
"""Shorter waits do not show as sleeping in the run's row: each would cost a transaction."""
_NOTHING = b"\xc0"

Ending = tuple[Literal["succeeded", "failed", "cancelled"], str]


@dataclass(slots=True)
class _Live:
    """One run that has not ended. `verdict` ends it from outside; `news` is what it waits for.

    slices, at_s: how many slices it might take in a row when it took the last one.
    """

    run: SceneRun
    in_worker: bool = False
    verdict: Ending | None = None
    news: asyncio.Future[bytes] | None = None
    slices: float = 0.0
    at_s: float = -math.inf
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, verdict: Ending) -> None:
        """Let the run end as soon as it can; the first verdict counts."""
        self.verdict = self.verdict or verdict
        self.tell(_NOTHING)

    def may_go_on(self, now_s: float) -> bool:
        """Take one more slice, unless the run took too many without a pause."""
        self.slices = min(_SLICES_AT_ONCE, self.slices + (now_s - self.at_s) * _SLICES_PER_S) - 1
        self.at_s = now_s
        return self.slices >= 0

    def tell(self, news: bytes) -> None:
        """Give the run what it waits for."""
        if self.news is not None and not self.news.done():
            self.news.set_result(news)


class SceneHost:
    """Runs the scene files of one directory."""

    def __init__(
        self,
        config: ScenesConfig,
        supervisor: Supervisor,
        clock: Clock,
        effects: RuleEffects,
        repository: SceneRepository,
    ) -> None:
        """Run nothing yet."""
        self.config = config
        self._supervisor = supervisor
        self._clock = clock
        self._effects = effects
        self._repository = repository
        self._plugins = PluginCalls(effects, config.args_bytes)
        self._scripts = SceneScripts(config)
        self._live: dict[str, _Live] = {}
        self._stopping = False
        self.started = 0
        self.failed = 0

    def scenes(self) -> list[SceneStatus]:
        """Every scene file and how it fares."""
        running: dict[str, int] = {}
        for live in self._live.values():
            running[live.run.scene] = running.get(live.run.scene, 0) + 1
        statuses = [scene.status for scene in self._scripts.scenes.values()]
        return [msgspec.structs.replace(status, running=running.get(status.name, 0)) for status in statuses]

    def processes(self) -> dict[str, int]:
        """Id of the worker process while it lives."""
        return {} if self._scripts.worker_pid is None else {"scenes": self._scripts.worker_pid}

    def samples(self) -> Iterator[Sample]:
        """Figures for `/metrics`."""
        yield Sample("gateway_scene_runs_total", "Scene runs started.", "counter", {}, self.started)
        yield Sample("gateway_scene_runs_failed_total", "Scene runs that failed.", "counter", {}, self.failed)
        yield Sample("gateway_scene_runs_open", "Scene runs that have not ended.", "gauge", {}, len(self._live))
        restarts = self._scripts.worker_restarts
        yield Sample("gateway_scene_worker_restarts_total", "Workers of scenes replaced.", "counter", {}, restarts)

    async def start(self) -> None:
        """Close what a crash left open, load the files and take runs."""
        self._stopping = False
        cut = await self._repository.fail_open_runs("gateway restarted", self._clock.now_ms())
        if cut:
            log.warning("scene runs were cut by a restart", runs=cut)
        await self._scripts.look()
        self._supervisor.start("scenes-files", self._watch)

    async def stop(self) -> None:
        """End every open run as failed, within bounds, then the worker."""
        self._stopping = True
        await self._supervisor.stop_part("scenes-files")
        open_runs = list(self._live.values())
        for live in open_runs:
            live.end(("failed", "gateway restarted"))
        try:
            await asyncio.wait_for(asyncio.gather(*(live.ended.wait() for live in open_runs)), _STOP_S)
        except TimeoutError:
            log.error("scene runs not saved; the next start ends them", runs=len(self._live))
        await self._scripts.stop()

    def require(self, scope: Scope, scene: str) -> None:
        """Raise NotFound unless the scope's tenant has a scene of that name."""
        if scope.tenant_id != DEFAULT_TENANT or scene not in self._scripts.scenes:
            raise NotFound(f"no scene {safe_text(scene)}")

    async def run(self, scope: Scope, scene: str, args: dict[str, Any]) -> SceneRun:
        """Start a run and return it as it stands.

        Raises NotFound, Conflict for a scene that does not load, Rejected for arguments that are not JSON or too large,
        NotReady when too many runs are open, StorageFailed when it cannot be saved (it does not start then).
        """
        self.require(scope, scene)
        known = self._scripts.scenes[scene]
        if not known.version:
            raise Conflict(f"the scene {safe_text(scene)} does not load: {known.status.last_error}")
        if self._stopping or len(self._live) >= self.config.runs:
            raise NotReady("too many scene runs are open; try again later")
        packed = self._packed(args)
        run = SceneRun(
            id=new_id(self._clock),
            tenant_id=scope.tenant_id,
            scene=scene,
            args=args,
            started_by=scope.actor,
            started_at_ms=self._clock.now_ms(),
        )
        live = self._live[run.id] = _Live(run)
        try:
            await self._repository.save_run(_copy(run))
        except BaseException:
            del self._live[run.id]
            raise
        self.started += 1
        self._supervisor.spawn(f"scene {scene}", self._drive(live, packed))
        return _copy(run)

    async def cancel(self, scope: Scope, run_id: str) -> SceneRun:
        """End a run; raises NotFound, Conflict when it ended already."""
        live = self._live.get(run_id)
        if live is None or live.run.tenant_id != scope.tenant_id:
            run = await self._repository.get_run(scope, run_id)
            raise Conflict(f"the run ended already: {run.status}")
        live.end(("cancelled", f"cancelled by {scope.actor}"))
        await live.ended.wait()
        return _copy(live.run)

    def _packed(self, args: dict[str, Any]) -> bytes:
        try:
            packed = encoder.encode(args)
        except (TypeError, ValueError, OverflowError, RecursionError) as failure:
            raise Rejected(f"args: {failure}") from failure
        if len(packed) > self.config.args_bytes:
            raise Rejected(f"args: larger than {self.config.args_bytes} bytes")
        return packed

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.config.poll_s)
            await self._scripts.look()

    # One run ---------------------------------------------------------------------------------------------------------

    async def _drive(self, live: _Live, args: bytes) -> None:
        """Take a run from slice to slice until it ends."""
        try:
            taken = await self._slice(live, args)
            while taken is not None and taken.outcome in {"wait", "ask"} and live.verdict is None:
                result = await self._wait(live, taken)
                taken = await self._slice(live, result) if live.verdict is None else None
            if taken is not None and taken.outcome in {"done", "failed"}:
                await self._end(live, ("succeeded" if taken.outcome == "done" else "failed", taken.error))
            else:
                await self._drop(live)
                await self._end(live, live.verdict or ("failed", "worker restarted"))
        finally:
            self._live.pop(live.run.id, None)
            live.ended.set()

    async def _slice(self, live: _Live, given: bytes) -> Slice | None:
        """Start a run or go on with it; None when that ended it, or its worker was lost, whoever was at fault."""
        run, now_ms = live.run, self._clock.now_ms()
        if not live.may_go_on(self._clock.monotonic_s()):
            live.end(("failed", f"the scene does not pause: over {_SLICES_PER_S} commands and waits a second"))
            return None
        try:
            if live.in_worker:
                taken = await self._scripts.resume_run(run.id, now_ms, given)
            else:
                live.in_worker = True
                taken = await self._scripts.start_run(run.scene, run.id, now_ms, given)
        except WorkerLost as lost:
            live.end(("failed", self._blame(lost)))
            self._lose_runs()
            return None
        except NotReady as failure:
            live.end(("failed", str(failure)))
            return None
        lines = [safe_text(line, self.config.limits.log_line_bytes) for line in taken.log]
        run.log = [*run.log, *lines][-self.config.run_log_lines :]
        return taken

    async def _wait(self, live: _Live, asked: Slice) -> bytes:
        """Wait for what a run asked for, or for its verdict."""
        loop = asyncio.get_running_loop()
        news: asyncio.Future[bytes] = loop.create_future()
        live.news = news
        timer: asyncio.TimerHandle | None = None
        if asked.outcome == "wait":
            live.run.status, live.run.wakes_at_ms = "sleeping", self._clock.now_ms() + round(asked.seconds * 1000)
            timer = loop.call_later(asked.seconds, live.tell, _NOTHING)
            if asked.seconds >= _SAVED_SLEEP_S:
                await self._save(live)
        else:
            self._supervisor.spawn("scene-asks", self._serve(live, asked.asked))
        try:
            return await news
        finally:
            if timer is not None:
                timer.cancel()
            live.news, live.run.status, live.run.wakes_at_ms = None, "running", None

    async def _serve(self, live: _Live, packed: bytes) -> None:
        """Do what a run asks for; what comes of it, whatever it is, goes back to the run, or ends it."""
        answer: bytes | None = None
        try:
            asked: Asked = asked_decoder.decode(packed)
            match asked:
                case SendCommand():
                    answer = await self._command(live, asked)
                case AskPlugin():
                    answer = await self._plugin(asked)
                case AskReport():
                    answer = await self._report(live, asked)
                case Notify():
                    answer = await self._notify(live, asked)
        finally:
            if answer is None:
                live.end(("failed", "the gateway could not do what the scene asked for; its log says why"))
            else:
                live.tell(answer)

    async def _command(self, live: _Live, command: SendCommand) -> bytes:
        timeout_s = command.timeout_s or self.config.command_timeout_s
        ended = await self._effects.command(
            live.run.tenant_id, command.device, command.name, command.args, f"scene:{live.run.scene}", timeout_s
        )
        answer = encoder.encode(ended)
        if len(answer) > self.config.args_bytes:
            short = {"status": ended.get("status"), "error": "the device's answer is too large for a scene"}
            answer = encoder.encode(short)
        return answer

    async def _plugin(self, asked: AskPlugin) -> bytes:
        return await self._plugins.answer(asked.plugin, asked.args, asked.timeout_s or self.config.plugin_timeout_s)

    async def _report(self, live: _Live, asked: AskReport) -> bytes:
        wanted = WantedReport(asked.plugin, asked.device, asked.property, asked.from_ms, asked.to_ms, asked.args)
        try:
            made = await self._effects.run_report(live.run.tenant_id, wanted, f"scene:{live.run.scene}")
        except GatewayError as failure:
            return encoder.encode((False, safe_text(str(failure), _ERROR_CHARS)))
        answer = encoder.encode((True, made))
        if len(answer) > self.config.args_bytes:  # the report is made all the same: its id is what matters
            answer = encoder.encode((True, {name: made[name] for name in ("id", "points", "row_count")}))
        return answer

    async def _notify(self, live: _Live, asked: Notify) -> bytes:
        actor = f"scene:{live.run.scene}"
        notice = Notice(live.run.tenant_id, actor, asked.channel, asked.title, asked.text, asked.severity)
        try:
            (refusal,) = await self._effects.notify([notice])
        except GatewayError as failure:
            refusal = str(failure)
        return encoder.encode({"status": "refused" if refusal else "queued", "error": refusal})

    def _blame(self, lost: WorkerLost) -> str:
        if lost.hung:
            return f"the scene did not yield; its worker was killed after {self.config.limits.kill_after_ms} ms"
        return "worker restarted" if not lost.script else "the worker ended while this run was at work"

    def _lose_runs(self) -> None:
        """The worker is gone, and every run that lived in it."""
        for live in self._live.values():
            if live.in_worker:
                live.end(("failed", "worker restarted"))

    async def _drop(self, live: _Live) -> None:
        try:
            await self._scripts.drop_run(live.run.id)
        except WorkerLost:
            self._lose_runs()

    async def _end(self, live: _Live, ending: Ending) -> None:
        run = live.run
        run.status, run.error = ending[0], safe_text(ending[1], _ERROR_CHARS)
        run.ended_at_ms, run.wakes_at_ms = self._clock.now_ms(), None
        if run.status == "failed":
            self.failed += 1
            log.error("scene failed", scene=run.scene, run=run.id, error=run.error)
        await self._save(live)

    async def _save(self, live: _Live) -> None:
        delay_s = _SAVE_FIRST_S
        for _ in range(_SAVE_TRIES):
            try:
                await self._repository.save_run(_copy(live.run))
            except (StorageFailed, NotReady) as failure:
                log.error("scene run not saved", run=live.run.id, retry_in_s=delay_s, error=str(failure))
                await asyncio.sleep(delay_s)
                delay_s *= 2
            else:
                return
        log.error("scene run given up; the next start ends its row", run=live.run.id, status=live.run.status)


def _copy(run: SceneRun) -> SceneRun:
    """A run as it stands, safe from what becomes of it."""
    return msgspec.structs.replace(run, log=list(run.log))
