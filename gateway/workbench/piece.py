"""A plugin on the workbench: found by path or id, read, and run in a sandbox with all that it asks for granted.

Needs no configuration and no running gateway. Knows neither how plugins are built nor what is checked of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import wasmtime

from gateway.core.clock import SystemClock
from gateway.core.errors import ConfigError
from gateway.framing.spec import framer_for
from gateway.wasm.caller import WasmCaller
from gateway.wasm.config import WasmConfig
from gateway.wasm.host import WasmCodec
from gateway.wasm.manifest import MANIFEST_NAME
from gateway.wasm.package import open_package
from gateway.wasm.program import Program
from gateway.wasm.release import Release, Starter, read_release
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.shown import from_shown
from gateway.wasm.vectors import VectorResult
from gateway.workbench.shipped import plugin_folder, shipped_plugins

PACKAGE_SUFFIX = ".gwp"


class Piece:
    """One release and the sandbox it is tried in. Made by the thread that calls it."""

    def __init__(self, release: Release, sandbox: Sandbox) -> None:
        """Start nothing yet."""
        self.release = release
        self._sandbox = sandbox
        self._starter = Starter(WasmConfig(), SystemClock(), lambda _: release.manifest.caps.asked())

    def start(self) -> Program:
        """A fresh instance; raises ConfigError, CodecError or PluginTrapped, saying why it does not start."""
        return self._starter.start(self.release, self._sandbox)

    @contextmanager
    def codec(self) -> Iterator[WasmCodec]:
        """A codec for a while. Raises as `start`."""
        codec = WasmCodec(self.start())
        try:
            yield codec
        finally:
            codec.close()

    @contextmanager
    def caller(self) -> Iterator[WasmCaller]:
        """A caller for a while, of any other kind. Raises as `start`."""
        caller = WasmCaller(self.start())
        try:
            yield caller
        finally:
            caller.close()

    def module(self) -> wasmtime.Module:
        """The compiled module. Raises ConfigError where the sandbox does not take it."""
        return self._sandbox.module(self.release.sha256, self.release.wasm)

    def prove(self) -> list[VectorResult]:
        """Run its own vectors. Raises as `start`."""
        return self._starter.prove(self.release, self._sandbox)


@contextmanager
def opened(target: str, root: Path) -> Iterator[Piece]:
    """A plugin by the path of its folder or package, or by its id below `root` or among the shipped ones.

    Raises ConfigError naming what was looked for, and where.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-piece-") as scratch:
        folder = located(target, root, Path(scratch))
        sandbox = Sandbox(WasmConfig())
        try:
            yield Piece(read_release(folder, WasmConfig(), lambda name: _runtime(name, folder, root)), sandbox)
        finally:
            sandbox.close()


def located(target: str, root: Path, scratch: Path) -> Path:
    """The folder of a plugin; a package is unpacked into `scratch`. Raises ConfigError."""
    path = Path(target)
    if path.suffix == PACKAGE_SUFFIX:
        return _unpacked(path, scratch)
    return plugin_folder(target, root)


def _unpacked(path: Path, scratch: Path) -> Path:
    package = open_package(path)
    folder = scratch / package.manifest.id
    for name, data in package.files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder


def _runtime(name: str, folder: Path, root: Path) -> Release:
    for place in (folder.parent / name, root / name, shipped_plugins() / name):
        if (place / MANIFEST_NAME).is_file():
            return read_release(place, WasmConfig(), _no_runtime)
    raise ConfigError(f"{folder.name}: its runtime {name!r} is neither beside it, nor below {root}, nor shipped")


def _no_runtime(name: str) -> Release:
    raise ConfigError(f"a runtime cannot have a runtime of its own ({name!r})")


def frames_of(piece: Piece) -> list[tuple[bytes, int]]:
    """The frames of a codec's vectors, as after framing, each with its aux."""
    frames = []
    for vector in piece.release.vectors:
        frame = vector.frame_bytes
        if frame is None:
            continue
        if vector.wire and piece.release.framing is not None:
            frame = b"".join(framer_for(piece.release.framing).feed(frame))
        frames.append((frame, vector.aux or 0))
    return frames


def calls_of(piece: Piece) -> list[bytes]:
    """The arguments of a caller's vectors, as msgpack."""
    return [
        msgspec.msgpack.encode(from_shown(vector.call)) for vector in piece.release.vectors if vector.call is not None
    ]
