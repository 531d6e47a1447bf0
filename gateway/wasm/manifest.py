"""The plugin manifest `plugin.toml`: typed, bounded, checked before anything of the plugin runs.

Owns the manifest's shape and its vectors. Knows neither wasmtime nor any framing's parameters.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from gateway.core.errors import ConfigError
from gateway.core.plain import typed

MANIFEST_NAME = "plugin.toml"
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_VECTORS_BYTES = 16 << 20
MOST_DEPTH: Final = 64
"""Tables and lists within each other, in a manifest or a vector: whatever reads, compares or shows one goes so deep."""
_LEAST_INT: Final = -(1 << 63)
_MOST_INT: Final = (1 << 64) - 1
"""Integers that MessagePack has: a plugin is given no other. Source: MessagePack specification, int format family."""

# `$` alone matches ahead of a line's end, too: a name with one names another folder than the one that is looked for.
PluginId: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,63}(?!\n)$", description="the folder's name")]
FileName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}(?!\n)$")]
Hex: TypeAlias = Annotated[str, Meta(pattern=r"^([0-9a-fA-F]{2})*$")]
PluginKind = Literal["codec", "crypto", "notify", "parser", "algo", "report"]
Capability = Literal["log", "clock", "random", "kv", "config", "wasi", "emit"]
Language = Literal["c", "zig", "assemblyscript", "go", "rust"]


class Match(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the plugin is for: words an operator searches by. They select nothing by themselves."""

    transports: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one instance. The maxima keep a manifest from buying more than one plugin may cost the gateway.

    memory_mib: linear memory; a plugin that asks for more gets none (`memory.grow` answers -1).
    deadline_ms: wall time of a call for one frame or an encode; over it the instance is discarded.
    batch_deadline_ms: wall time of a call for many frames; with deadline_ms it bounds what the loop waits.
    start_deadline_ms: wall time of a whole start (`_initialize` to gw_init): a runtime may need more than a frame.
    call_deadline_ms: wall time of a gw_call, which runs on a thread of its own: the loop does not wait for it.
    workers: threads that run gw_call at the same time, each with an instance (and state) of its own.
    max_input: bytes of one call's input, headers included; a batch over it is split.
    max_output: bytes of one call's result; a longer one is error code 4.
    """

    memory_mib: Annotated[int, Meta(ge=1, le=256)] = 16
    deadline_ms: Annotated[int, Meta(ge=1, le=1000)] = 20
    batch_deadline_ms: Annotated[int, Meta(ge=1, le=2000)] = 50
    start_deadline_ms: Annotated[int, Meta(ge=1, le=2000)] = 100
    call_deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] = 1000
    workers: Annotated[int, Meta(ge=1, le=8)] = 1
    max_input: Annotated[int, Meta(ge=1024, le=16 << 20)] = 256 << 10
    max_output: Annotated[int, Meta(ge=1024, le=16 << 20)] = 1 << 20


class Caps(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the plugin asks of the host; each needs the operator's grant, too.

    All but `emit` are imports; `emit` lets it answer with actions (HTTP requests as data) that the host carries out.
    """

    log: bool = False
    clock: bool = False
    random: bool = False
    kv: bool = False
    config: bool = False
    wasi: bool = False
    emit: bool = False

    def __or__(self, other: Caps) -> Caps:
        """What either asks for."""
        return Caps(**dict.fromkeys(self.asked() | other.asked(), True))

    def asked(self) -> frozenset[str]:
        """The capabilities that are set."""
        return frozenset(name for name in self.__struct_fields__ if getattr(self, name))


class SchemaField(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field the plugin reports; `unit` is a UCUM code."""

    name: str
    type: Literal["bool", "int", "float", "string", "enum", "datetime", "object", "array"] = "float"
    unit: str | None = None


class Schema(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields the plugin reports, in order."""

    fields: tuple[SchemaField, ...] = ()


class State(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether state is carried over a reload through gw_state_save and gw_state_load."""

    carry: bool = False


class Upstream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Third-party sources that the build fetches: a source distribution from the Python package index, by its hash.

    requirement: name and exact version, as `quickjs==1.19.4`. sha256: of the archive; any other is refused.
    """

    requirement: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Build(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `gateway plugin build` makes the module.

    sources: files of the folder; `upstream/...` are those of the fetched archive, below its top folder.
    flags: extra compiler flags, after the standard ones. generated: files that a Python script of the folder prints
        before the compiler runs (`{"tables.h" = "tables.py"}`); they lie in a scratch folder, not beside the sources.
    libc: compile C against wasi-libc, as a WASI reactor. What the module then imports of WASI needs `caps.wasi`.
    """

    language: Language = "c"
    sources: tuple[FileName, ...] = ()
    flags: tuple[str, ...] = ()
    generated: dict[FileName, FileName] = {}
    upstream: Upstream | None = None
    libc: bool = False


class Vector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One promise of the plugin, checked at every load, in order and on one instance, so that state carries over.

    Exactly one of `frame` (or `frame_hex`, the same), `encode`, `call` and `vectors` is given. Bytes inside `call` and
    `result` are written `{"$hex": "00ff"}`.

    frame: hex of a frame after framing; with `wire`, as it travels, and the manifest's framing must cut one frame.
    expect: must be contained in the decoded `value`: maps match by their keys, lists and scalars as a whole.
    item: the same against the whole decoded item (`kind`, `device`, `points`, `ack`, ...).
    error: the error code that the frame must give instead. drop: the frame must give nothing.
    encode: a request for gw_encode; `hex` is what it must give, or `error` the code.
    call: arguments for gw_call; `result` must be contained in what it gives, or `error` is the code.
    vectors: a JSON file in the plugin's folder: a list of these, or an object whose `vectors` is that list;
        `wire` and `aux` hold for all of them that do not say otherwise.
    """

    name: str = ""
    frame: Hex | None = None
    frame_hex: Hex | None = None
    wire: bool | None = None
    aux: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)] | None = None
    expect: Any = msgspec.UNSET
    item: dict[str, Any] | None = None
    error: int | None = None
    drop: bool = False
    encode: dict[str, Any] | None = None
    hex: Hex | None = None
    call: dict[str, Any] | None = None
    result: Any = msgspec.UNSET
    vectors: FileName | None = None

    @property
    def frame_bytes(self) -> bytes | None:
        """The frame, however it was written."""
        text = self.frame if self.frame is not None else self.frame_hex
        return None if text is None else bytes.fromhex(text)


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plugin's `plugin.toml`.

    file: the module, `<id>.wasm` where not said. sha256: refuse any other module.
    runtime: id of the plugin whose module runs this one (an interpreter); then `script` is the file that it is given in
        gw_init, and there is no module of its own.
    config: settings that gw_init gets; the operator's `[wasm.settings.<id>]` overrides them key by key.
    framing: names a framer and its parameters, as in a listener's `framing`; a listener's own overrides it.
    test: promises that are checked at every load; a plugin that breaks one is not used.
    """

    id: PluginId
    version: Annotated[str, Meta(min_length=1, max_length=64)]
    kind: PluginKind = "codec"
    abi: Literal["gw1"] = "gw1"
    license: Annotated[str, Meta(min_length=1, max_length=64)]
    description: str = ""
    file: FileName | None = None
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None = None
    runtime: PluginId | None = None
    script: FileName | None = None
    config: dict[str, Any] = {}
    match: Match = Match()
    framing: dict[str, Any] | None = None
    limits: Limits = Limits()
    caps: Caps = Caps()
    schema: Schema = Schema()
    state: State = State()
    build: Build = Build()
    test: tuple[Vector, ...] = ()

    @property
    def wasm_name(self) -> str:
        """File name of the module inside the plugin's folder."""
        return self.file or f"{self.id}.wasm"


def plugin_folders(root: Path) -> list[Path]:
    """Folders directly below `root` that hold a manifest, by name."""
    return sorted(path.parent for path in root.glob(f"*/{MANIFEST_NAME}"))


def load_manifest(folder: Path) -> Manifest:
    """Read `plugin.toml` of a plugin's folder; raises ConfigError naming the file and the key."""
    path = folder / MANIFEST_NAME
    data = manifest_data(_read(path, _MAX_MANIFEST_BYTES), str(path))
    manifest = parse_manifest(data, str(path))
    if manifest.id != folder.name:
        raise ConfigError(f"{path}: id is {manifest.id!r}, but the folder is called {folder.name!r}; make them equal")
    return manifest


def manifest_data(text: bytes, where: str) -> dict[str, Any]:
    """The tables of a manifest that was read from `where`, in TOML; raises ConfigError."""
    try:
        return tomllib.loads(text.decode())
    except RecursionError:
        raise ConfigError(f"{where}: not valid TOML: {_TOO_DEEP}") from None
    except ValueError as error:  # no TOML, no UTF-8, or a number of more digits than anybody reads
        raise ConfigError(f"{where}: not valid TOML: {error}") from error


def parse_manifest(data: dict[str, Any], where: str) -> Manifest:
    """Check a manifest that was read from `where`; raises ConfigError naming the key and the nearest known one."""
    _check_plain(data, where)
    manifest = typed(data, Manifest, where)
    if (manifest.runtime is None) != (manifest.script is None):
        raise ConfigError(f"{where}: `runtime` and `script` belong together: give both or neither")
    if manifest.runtime is not None and (manifest.file is not None or manifest.build.sources):
        raise ConfigError(f"{where}: a plugin with a `runtime` has no module of its own: leave out `file` and `build`")
    generated = manifest.build.generated
    for name in (manifest.wasm_name, manifest.script, *manifest.build.sources, *generated, *generated.values()):
        if name is not None:
            _inside(name, where)
    for number, vector in enumerate(manifest.test, 1):
        _check_vector(vector, f"{where}: test {number}")
    return manifest


def load_vectors(manifest: Manifest, folder: Path) -> list[Vector]:
    """All vectors of a plugin, those of its JSON files included; raises ConfigError."""
    vectors: list[Vector] = []
    for vector in manifest.test:
        if vector.vectors is None:
            vectors.append(vector)
        else:
            vectors.extend(_file_vectors(folder / vector.vectors, vector))
    return vectors


def _file_vectors(path: Path, default: Vector) -> list[Vector]:
    try:
        data = msgspec.json.decode(_read(path, _MAX_VECTORS_BYTES))
    except RecursionError:
        raise ConfigError(f"{path}: not valid JSON: {_TOO_DEEP}") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from error
    _check_plain(data, str(path))
    entries = data.get("vectors") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: must be a list of vectors, or an object whose `vectors` is that list")
    vectors = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}: vector {number}"
        vector = typed(entry, Vector, where)
        if vector.vectors is not None:
            raise ConfigError(f"{where}: a vectors file cannot name another one")
        _check_vector(vector, where)
        vectors.append(
            msgspec.structs.replace(
                vector,
                name=vector.name or f"{path.name} {number}",
                wire=default.wire if vector.wire is None else vector.wire,
                aux=default.aux if vector.aux is None else vector.aux,
            )
        )
    return vectors


_TOO_DEEP: Final = f"nested too deeply; nest tables and lists at most {MOST_DEPTH} deep"


def _check_plain(data: Any, where: str) -> None:
    """Raise ConfigError for what could be read, but not be handed on to a plugin or compared with its answers."""
    level: list[Any] = [data]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif isinstance(value, int) and not _LEAST_INT <= value <= _MOST_INT:
                raise ConfigError(f"{where}: an integer lies outside of 64 bits; write it as text")
        if not below:
            return
        level = below
    raise ConfigError(f"{where}: {_TOO_DEEP}")


def _check_vector(vector: Vector, where: str) -> None:
    asks = [vector.frame, vector.frame_hex, vector.encode, vector.call, vector.vectors]
    if sum(ask is not None for ask in asks) != 1:
        raise ConfigError(f"{where}: give exactly one of frame, frame_hex, encode, call and vectors")
    if vector.vectors is not None:
        _inside(vector.vectors, where)
        return
    if vector.encode is not None:
        wanted, answers = "hex or error", [vector.hex is not None, vector.error is not None]
    elif vector.call is not None:
        wanted, answers = "result or error", [vector.result is not msgspec.UNSET, vector.error is not None]
    else:
        wanted = "expect (or item), error or drop"
        shown = vector.expect is not msgspec.UNSET or vector.item is not None
        answers = [shown, vector.error is not None, vector.drop]
    if sum(answers) != 1:
        raise ConfigError(f"{where}: say what must come out: exactly one of {wanted}")


def _inside(name: str, where: str) -> None:
    if ".." in Path(name).parts:
        raise ConfigError(f"{where}: {name!r} leaves the plugin's folder")


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise ConfigError(f"{path}: larger than {most} bytes")
    return data
