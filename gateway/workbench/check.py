"""Looks a plugin over before it is given away: what a person who runs it relies on, proved as far as it can be.

Knows neither how it is built nor how it is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

import wasmtime

from gateway.core.errors import ConfigError, GatewayError, Rejected
from gateway.things.units import check_unit
from gateway.wasm.abi import IMPORTS, WASI_MODULE, check_exports, check_imports
from gateway.wasm.manifest import Manifest
from gateway.wasm.release import Release
from gateway.workbench.piece import Piece

Grade = Literal["ok", "warn", "fail"]
_LEAST_README_CHARS: Final = 200
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")
_PAGE_BYTES: Final = 65536


class Finding(NamedTuple):
    """One thing that was looked at: it holds, it could be better, or it does not hold."""

    grade: Grade
    what: str
    detail: str = ""


def check(piece: Piece) -> list[Finding]:
    """Every finding. A plugin with a `fail` should not be given to anybody."""
    return list(_findings(piece))


def _findings(piece: Piece) -> Iterator[Finding]:
    release = piece.release
    yield from _words(release)
    yield from _schema(release.manifest)
    yield from _module(piece)
    yield from _promises(piece)


def _words(release: Release) -> Iterator[Finding]:
    manifest = release.manifest
    well = _VERSION.fullmatch(manifest.version) is not None
    yield Finding("ok" if well else "warn", f"version {manifest.version}", "" if well else "write it as 1.2.3")
    yield _judged(bool(manifest.description), "description", "say in a line what it is for: `description`", "warn")
    readme = release.folder / "README.md"
    text = readme.read_text(errors="replace") if readme.is_file() else ""
    enough = len(text) >= _LEAST_README_CHARS
    yield _judged(enough, "README.md", f"say which devices, what is decoded and its limits ({len(text)} characters)")
    if manifest.match.profiles:
        # "JT/T 808-2013" is named by "JT/T 808", whatever the edition.
        words = [profile.partition("-")[0] for profile in manifest.match.profiles]
        named = [word for word in words if word.casefold() in text.casefold()]
        yield _judged(
            bool(named), "README.md names the device", f"none of {', '.join(manifest.match.profiles)}", "warn"
        )


def _schema(manifest: Manifest) -> Iterator[Finding]:
    names = [field.name for field in manifest.schema.fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield Finding("fail", "schema", f"named twice: {', '.join(twice)}")
    for field in manifest.schema.fields:
        if field.unit is not None:
            try:
                check_unit(field.unit)
            except (Rejected, ValueError) as wrong:
                yield Finding("fail", f"unit of {field.name}", str(wrong))
    if names and not twice:
        yield Finding("ok", f"schema of {len(names)} fields")


def _module(piece: Piece) -> Iterator[Finding]:
    release, manifest = piece.release, piece.release.manifest
    try:
        module = piece.module()
        check_exports(module, manifest.kind)
        check_imports(module, manifest.caps.asked(), manifest.caps.asked())
    except ConfigError as wrong:
        yield Finding("fail", "module", str(wrong))
        return
    yield Finding("ok", f"module of {len(release.wasm):,} bytes, exports and imports as the ABI has them")
    idle = manifest.caps.asked() - _used(module) - {"emit"}
    if release.script is None:
        yield _judged(not idle, "capabilities", f"asked for and not used: {', '.join(sorted(idle))}")
    exports = {export.name for export in module.exports}
    yield from _state(manifest, exports)
    yield from _memory(manifest, module)
    yield _judged("gw_last_error" in exports, "error texts", "export gw_last_error, so that people learn why", "warn")


def _used(module: wasmtime.Module) -> set[str]:
    used = set()
    for item in module.imports:
        if item.module == WASI_MODULE:
            used.add("wasi")
        elif item.name is not None and item.name in IMPORTS:
            used.add(IMPORTS[item.name][0])
    return used


def _state(manifest: Manifest, exports: set[str]) -> Iterator[Finding]:
    both = {"gw_state_save", "gw_state_load"} <= exports
    if manifest.state.carry:
        yield _judged(both, "state", "`[state] carry` needs the exports gw_state_save and gw_state_load")
    elif both:
        yield Finding("warn", "state", "it can save state, but the manifest does not say `[state] carry = true`")


def _memory(manifest: Manifest, module: wasmtime.Module) -> Iterator[Finding]:
    limits = manifest.limits
    memory = next(export.type for export in module.exports if export.name == "memory")
    least = memory.limits.min * _PAGE_BYTES if isinstance(memory, wasmtime.MemoryType) else 0
    most = limits.memory_mib << 20
    yield _judged(least <= most, "memory", f"starts with {least:,} bytes, `memory_mib` allows {most:,}")


def _promises(piece: Piece) -> Iterator[Finding]:
    vectors = piece.release.vectors
    good = sum(vector.error is None and not vector.drop for vector in vectors)
    bad = len(vectors) - good
    yield _judged(bool(vectors), "vectors", "promise something: [[test]]")
    yield _judged(bool(good), "vectors of good results", "promise at least one: [[test]]", "warn")
    yield _judged(bool(bad), "vectors of errors", "promise what a damaged input gives, too: `error = 1`", "warn")
    try:
        results = piece.prove()
    except GatewayError as failure:
        yield Finding("fail", "start", str(failure))
        return
    failed = [result for result in results if not result.ok]
    for result in failed:
        yield Finding("fail", f"vector {result.name}", result.detail)
    if results and not failed:
        yield Finding("ok", f"{len(results)} vectors pass")


def _judged(holds: bool, what: str, otherwise: str, grade: Grade = "fail") -> Finding:  # noqa: FBT001 - the first word of a judgement
    return Finding("ok", what) if holds else Finding(grade, what, otherwise)
