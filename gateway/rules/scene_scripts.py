"""Scene files and the worker that holds them. Knows versions and slices, not what becomes of a run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from gateway.core.errors import NotReady
from gateway.core.log import safe_text
from gateway.rules.config import ScenesConfig
from gateway.rules.model import SceneStatus
from gateway.rules.process import WorkerLost, WorkerProcess
from gateway.rules.scripts import ScriptFile, ScriptFolder
from gateway.rules.wire import (
    Declared,
    DropRun,
    Load,
    Loaded,
    ResumeRun,
    ServeScenes,
    Slice,
    StartRun,
    Unload,
    declared_decoder,
    encoder,
)

log = structlog.get_logger(__name__)

_ERROR_CHARS = 500
_STARTS = 3
"""Workers tried in a row before runs are told that there is none."""


@dataclass(slots=True)
class Scene:
    """One scene file. `version` is what new runs start, 0 while none loaded; a broken file leaves the one before."""

    status: SceneStatus
    version: int = 0
    good: ScriptFile | None = None

    def broken(self, error: str) -> None:
        """A version did not load."""
        self.status.state, self.status.last_error = "broken", safe_text(error, _ERROR_CHARS)
        log.error("scene does not load", scene=self.status.name, error=self.status.last_error)


class SceneScripts:
    """Loads scene files and lets runs go on, one slice at a time."""

    def __init__(self, config: ScenesConfig) -> None:
        """Hold nothing yet."""
        self._folder = ScriptFolder(Path(config.directory), config.files, config.limits.source_bytes)
        self._worker = WorkerProcess("scenes", ServeScenes(config))
        self._turn = asyncio.Lock()
        self._versions = 0
        self.scenes: dict[str, Scene] = {}

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker while it lives."""
        return self._worker.pid

    @property
    def worker_restarts(self) -> int:
        """Workers that had to be replaced."""
        return max(0, self._worker.starts - 1)

    async def look(self) -> None:
        """Load what changed in the directory. Raises NotReady."""
        async with self._turn:
            changed, gone = await asyncio.to_thread(self._folder.look)
            for name in gone:
                await self._unload(self.scenes.pop(name).version)
            while changed:
                try:
                    await self._install(self._scene_of(changed[0]), changed[0])
                except BaseException:
                    self._folder.put_back(changed)
                    raise
                del changed[0]

    async def start_run(self, scene: str, run: str, now_ms: int, args: bytes) -> Slice:
        """Start a run. Raises WorkerLost, NotReady."""
        async with self._turn:
            await self._ready()
            known = self.scenes.get(scene)
            if known is None or not known.version:
                return Slice("failed", error="the scene does not load any more")
            return await self._slice(StartRun(known.version, run, now_ms, args))

    async def resume_run(self, run: str, now_ms: int, result: bytes) -> Slice:
        """Go on with a run. Raises WorkerLost, also when its worker was lost before."""
        async with self._turn:
            return await self._slice(ResumeRun(run, now_ms, result))

    async def drop_run(self, run: str) -> None:
        """Forget a run. Raises WorkerLost."""
        async with self._turn:
            if self._worker.running:
                await self._worker.ask(encoder.encode(DropRun(run)), DropRun)

    async def stop(self) -> None:
        """End the worker."""
        await self._worker.stop()

    def _scene_of(self, file: ScriptFile) -> Scene:
        status = SceneStatus(name=file.name, path=str(file.path), state="broken")
        return self.scenes.setdefault(file.name, Scene(status))

    async def _slice(self, request: StartRun | ResumeRun) -> Slice:
        answer = await self._worker.ask(encoder.encode(request), type(request))
        return answer if isinstance(answer, Slice) else Slice("failed", error="worker restarted")

    async def _install(self, scene: Scene, file: ScriptFile) -> None:
        if file.problem:
            scene.broken(file.problem)
            return
        self._versions += 1
        version, before = self._versions, scene.version
        await self._ready()
        try:
            loaded = _loaded(await self._worker.ask(encoder.encode(_load(version, file)), Load))
        except WorkerLost as lost:
            loaded = _loading(lost)
        if isinstance(loaded, str):
            scene.broken(loaded)
            return
        scene.version, scene.good = version, file
        scene.status.state, scene.status.last_error = "ready", ""
        scene.status.description = loaded.description
        await self._unload(before)
        log.info("scene loaded", scene=file.name)

    async def _unload(self, version: int) -> None:
        """Take no more runs of a version; those that run keep it."""
        if version and self._worker.running:
            try:
                await self._worker.ask(encoder.encode(Unload(version)), Unload)
            except WorkerLost:
                log.info("worker lost while idle; the next run starts another")

    async def _ready(self) -> None:
        """Have a worker with every scene loaded; raises NotReady."""
        for _ in range(_STARTS + len(self.scenes)):
            if self._worker.running:
                return
            await self._worker.start()
            await self._reload()
        raise NotReady("the worker of scenes does not start")

    async def _reload(self) -> None:
        for scene in self.scenes.values():
            if scene.good is None:
                continue
            try:
                loaded = _loaded(await self._worker.ask(encoder.encode(_load(scene.version, scene.good)), Load))
            except WorkerLost as lost:
                if lost.script == scene.version:
                    scene.version, scene.good = 0, None
                    scene.broken(_loading(lost))
                return
            if isinstance(loaded, str):
                scene.version, scene.good = 0, None
                scene.broken(loaded)


def _load(version: int, file: ScriptFile) -> Load:
    return Load(version, f"{file.name}.lua", file.source)


def _loading(lost: WorkerLost) -> str:
    return "loading the file does not end" if lost.hung else "the worker ended while it loaded the file"


def _loaded(answer: object) -> Declared | str:
    """What a file declares, or why it did not load."""
    if not isinstance(answer, Loaded):
        return "the worker refused the file"
    if answer.error:
        return answer.error
    try:
        declared: Declared = declared_decoder.decode(answer.declared)
    except msgspec.MsgspecError as failure:
        return str(failure)
    return declared
