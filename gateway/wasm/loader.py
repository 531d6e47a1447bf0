"""Judging versions before they run: read, compile, check what they ask for, and make them keep their promises.

Owns the thread on which that happens while the gateway runs, with a sandbox of its own, so that neither a slow compiler
nor a hostile vector touches the loop, and another for the disk, so that people's decisions wait for
neither. Starts nothing for good: whoever asked does, with what a verdict holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar

import msgspec
import structlog
import wasmtime

from gateway.core.errors import ConfigError, GatewayError
from gateway.wasm.code_bounds import check_code
from gateway.wasm.config import WasmConfig
from gateway.wasm.release import NotBuilt, Release, Starter, read_release
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.status import PluginState
from gateway.wasm.vectors import VectorResult
from gateway.wasm.versions import Found

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Proven(msgspec.Struct, frozen=True):
    """A version that may run: read, compiled for the loop's sandbox (the module is kept alive here), vectors passed."""

    found: Found
    release: Release
    module: wasmtime.Module
    vectors: list[VectorResult]


class Unchanged(msgspec.Struct, frozen=True):
    """The version is, byte for byte, the one that the caller has."""

    found: Found


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A version that may not run. missing: capabilities that a person must grant first (state `waiting`)."""

    found: Found
    state: PluginState
    reason: str
    release: Release | None = None
    missing: tuple[str, ...] = ()
    vectors: list[VectorResult] = []


Verdict: TypeAlias = Proven | Unchanged | Refusal


class Loader:
    """Judges versions, on the caller's thread or on one of its own."""

    def __init__(
        self,
        config: WasmConfig,
        starter: Starter,
        sandbox: Sandbox,
        make_sandbox: Callable[[], Sandbox],
        *,
        runtime: Callable[[str], Release],
        granted: Callable[[str], frozenset[str]],
    ) -> None:
        """`sandbox` is the one in which versions will run; `runtime` and `granted` may be called from any thread."""
        self._config = config
        self._starter = starter
        self._sandbox = sandbox
        self._make_sandbox = make_sandbox
        self._runtime = runtime
        self._granted = granted
        self._aside: Sandbox | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wasm-loader")
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wasm-versions")

    def close(self) -> None:
        """End the threads; the vector or compiler that runs now is waited for, what waits is not begun."""
        self._closed = True
        self._disk.shutdown(wait=True, cancel_futures=True)
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._aside is not None:
            self._aside.close()

    def read(self, candidates: Iterable[Found]) -> Release | None:
        """The first of some versions that can be read, without judging it."""
        for found in candidates:
            try:
                return read_release(found.folder, self._config, self._runtime)
            except GatewayError:
                continue
            except Exception:  # a wall, as in `_judge`
                log.exception("a plugin cannot be read", plugin=found.id)
        return None

    def judge(self, found: Found, using: str | None = None, barred: Collection[str] = ()) -> Verdict:
        """Judge a version on the caller's thread, which must be the sandbox's. Never raises for what a plugin does.

        using: digest of the release that the caller has already. barred: digests of releases that struck out.
        """
        return self._judge(found, using, barred, self._sandbox)

    async def judge_aside(self, found: Found, using: str | None = None, barred: Collection[str] = ()) -> Verdict:
        """The same on the loader's own thread, while the loop goes on."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: self._judge(found, using, barred, self._own_sandbox()))

    async def aside(self, work: Callable[[], T]) -> T:
        """Do something that waits for the disk on a thread that no compiler and no vector holds up."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    def _own_sandbox(self) -> Sandbox:
        if self._aside is None:
            self._aside = self._make_sandbox()
        return self._aside

    def _judge(self, found: Found, using: str | None, barred: Collection[str], sandbox: Sandbox) -> Verdict:
        """The wall around strangers' files: whatever they make our reading do ends neither start nor thread."""
        try:
            return self._judged(found, using, barred, sandbox)
        except Exception as error:
            log.exception("a plugin cannot be judged", plugin=found.id, version=found.version)
            return Refusal(found=found, state="refused", reason=f"it cannot be judged: {type(error).__name__}")

    def _judged(self, found: Found, using: str | None, barred: Collection[str], sandbox: Sandbox) -> Verdict:
        release: Release | None = None
        vectors: list[VectorResult] = []
        try:
            release = read_release(found.folder, self._config, self._runtime)
            if release.digest == using:
                return Unchanged(found)
            if release.digest in barred:
                raise ConfigError("it was taken out of use before; activate it by name to use it again")
            missing = tuple(sorted(release.manifest.caps.asked() - self._granted(found.id)))
            if missing:
                text = f"asks for {', '.join(missing)}, which is not granted ([wasm.grants], or grant it to the plugin)"
                return Refusal(found=found, state="waiting", reason=text, release=release, missing=missing)
            check_code(release.wasm)
            module = self._starter.module(release, sandbox)
            vectors = self._starter.prove(release, sandbox, lambda: self._closed)
            failed = [result for result in vectors if not result.ok]
            if failed:
                raise ConfigError(f"{len(failed)} test vectors fail; {failed[0].name}: {failed[0].detail}")
            if release.manifest.kind != "codec":
                self._starter.start(release, sandbox).close()  # a codec does so on the loop's thread, and stays
            if sandbox is not self._sandbox:
                module = self._sandbox.adopt(release.sha256, module)
        except NotBuilt as missing_module:
            return Refusal(found=found, state="not_built", reason=str(missing_module))
        except (GatewayError, wasmtime.WasmtimeError) as error:
            return Refusal(found=found, state="refused", reason=str(error), release=release, vectors=vectors)
        return Proven(found, release, module, vectors)
