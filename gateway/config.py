"""The configuration: `config.toml`, overlaid by `GATEWAY__SECTION__KEY`, as one frozen tree of the rooms' structs.

Owns reading, overlaying, secrets by reference and relative paths (they start at the file's folder). What a key means is
documented by the struct of its room.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from typing_extensions import override

from gateway.api.config import HttpConfig
from gateway.core.errors import ConfigError
from gateway.core.outbound import OutboundConfig
from gateway.core.plain import typed
from gateway.identity.config import IdentityConfig
from gateway.listeners.backlog import BacklogConfig
from gateway.pipeline import PipelineConfig
from gateway.reports.config import ReportsConfig
from gateway.rules.config import RulesConfig, ScenesConfig
from gateway.storage.config import DatabaseConfig, JournalConfig, RetentionConfig
from gateway.things.commands import CommandConfig
from gateway.things.config import ThingsConfig
from gateway.things.model import FieldMapping
from gateway.wasm.config import PluginsConfig, WasmConfig
from gateway.wasm.stages import StageConfig

PREFIX = "GATEWAY__"
LATER = ("mqtt", "dicom", "hl7", "sip", "grpc")
"""Sections whose part does not exist yet: valid, and ignored with one log line."""

_HTTP_TLS = ("tls_certificate", "tls_key")
_LISTENER_TLS = ("certificate", "key", "client_ca")
_SECRET_ENDINGS = ("_token", "_password", "_secret")


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What concerns every part.

    bind: address that all ports bind to; loopback until an operator opens it.
    data_dir: database, keys, caches; made with mode 0700.
    log_style: `auto` is human on a terminal and JSON elsewhere.
    shutdown_s: how long a stop waits for what was accepted to become durable.
    """

    bind: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    data_dir: str = "data"
    log_style: Literal["auto", "human", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    shutdown_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0


class LaterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A section that a later version will read; its other keys are not checked yet."""

    enabled: bool = False
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0


class ProductEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A product that the file declares; `[products.ID]`.

    plugin: id of the codec plugin. stages: names of `[stages.NAME]` that its frames pass, in their order. model: path
        of the thing model's JSON file. The rest is as in the API.
    """

    name: str = ""
    plugin: str | None = None
    stages: tuple[str, ...] = ()
    model: str | None = None
    registration: Literal["auto", "preregistered"] = "preregistered"
    authentication: Literal["optional", "required"] = "optional"
    mapping: tuple[FieldMapping, ...] = ()
    retention_days: Annotated[float, msgspec.Meta(gt=0, le=36_500)] | None = None
    enabled: bool = True


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration. `listeners`, `sinks` and `notify` stay plain: each kind of them knows its own keys."""

    server: ServerConfig = ServerConfig()
    http: HttpConfig = HttpConfig()
    identity: IdentityConfig = IdentityConfig()
    listeners: dict[str, dict[str, Any]] = {}
    sinks: dict[str, dict[str, Any]] = {}
    backlog: BacklogConfig = BacklogConfig()
    pipeline: PipelineConfig = PipelineConfig()
    plugins: PluginsConfig = PluginsConfig()
    wasm: WasmConfig = WasmConfig()
    stages: dict[str, StageConfig] = {}
    products: dict[str, ProductEntry] = {}
    things: ThingsConfig = ThingsConfig()
    commands: CommandConfig = CommandConfig()
    database: DatabaseConfig = DatabaseConfig()
    journal: JournalConfig = JournalConfig()
    retention: RetentionConfig = RetentionConfig()
    outbound: OutboundConfig = OutboundConfig()
    notify: dict[str, dict[str, Any]] = {}
    rules: RulesConfig = RulesConfig()
    scenes: ScenesConfig = ScenesConfig()
    reports: ReportsConfig = ReportsConfig()
    mqtt: LaterConfig = LaterConfig()
    dicom: LaterConfig = LaterConfig()
    hl7: LaterConfig = LaterConfig()
    sip: LaterConfig = LaterConfig()
    grpc: LaterConfig = LaterConfig()

    @override
    def __repr__(self) -> str:
        """Show no value: secrets are resolved here."""
        return "GatewayConfig(...)"


class Loaded(msgspec.Struct, frozen=True):
    """A configuration with where it came from: relative paths start at `home`; `named` are the sections it sets."""

    config: GatewayConfig
    home: Path
    named: frozenset[str]

    def path(self, text: str) -> Path:
        """A path of the configuration, made absolute."""
        return (self.home / Path(text).expanduser()).resolve()


def load(path: Path, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read a file and overlay the environment. Raises ConfigError naming the file, the key and what to do."""
    environment = os.environ if environment is None else environment
    try:
        text = path.read_bytes()
    except OSError as failure:
        reason = failure.strerror or failure
        raise ConfigError(f"{path}: {reason}; name a configuration with: gateway run -c PATH") from failure
    try:
        plain: dict[str, Any] = tomllib.loads(text.decode())
    except UnicodeDecodeError as failure:
        raise ConfigError(f"{path}: not UTF-8 at byte {failure.start}") from failure
    except (ValueError, RecursionError) as failure:  # no TOML, or a number of more digits than anybody reads
        raise ConfigError(f"{path}: {failure}") from failure
    home = path.resolve().parent
    _refuse_plain_secrets(plain, path.name, ())
    overlay(plain, environment)
    plain = _resolved(plain, home, environment, ())
    _absolute_tls(plain, home)
    return Loaded(typed(plain, GatewayConfig, path.name), home, frozenset(plain))


def _absolute_tls(plain: dict[str, Any], home: Path) -> None:
    """Let the TLS files of `[http]` and of listeners start at the file's folder, as every other path does."""
    listeners = plain.get("listeners")
    entries = listeners.values() if isinstance(listeners, dict) else ()
    tables = [entry.get("tls") for entry in entries if isinstance(entry, dict)]
    for table, keys in [(plain.get("http"), _HTTP_TLS), *((table, _LISTENER_TLS) for table in tables)]:
        if not isinstance(table, dict):
            continue
        for key in keys:
            if isinstance(table.get(key), str):
                table[key] = str((home / Path(table[key]).expanduser()).resolve())


def overlay(plain: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Set `GATEWAY__A__B=value` at `a.b`. Values are read as TOML, else taken as text.

    A name matches a key of the file whatever its case, `_` standing for `-` too; else it is taken in lower case.
    """
    for name in sorted(environment):
        if not name.startswith(PREFIX):
            continue
        *sections, key = name.removeprefix(PREFIX).split("__")
        table = plain
        for step in sections:
            inner = table.setdefault(_match(table, step), {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{name}: `{step.lower()}` is a value, not a section")
            table = inner
        name_in_file = _match(table, key)
        text = environment[name]
        is_secret = _is_secret((*(step.lower() for step in sections), name_in_file))
        table[name_in_file] = text if is_secret else _value(text)


def _match(table: dict[str, Any], word: str) -> str:
    wanted = word.lower()
    for key in table:
        if key.lower().replace("-", "_") == wanted.replace("-", "_"):
            return key
    return wanted


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _is_secret(steps: tuple[str, ...]) -> bool:
    """Whether a key, given with the sections above it, must be a reference: by its ending, or in a `secrets` table."""
    return steps[-1].endswith(_SECRET_ENDINGS) or steps[2:-1] == ("secrets",)


def _refuse_plain_secrets(table: dict[str, Any], where: str, above: tuple[str, ...]) -> None:
    for key, value in table.items():
        steps = (*above, key)
        if isinstance(value, dict):
            _refuse_plain_secrets(value, where, steps)
        elif isinstance(value, str) and _is_secret(steps):
            at = ".".join(steps)
            variable = PREFIX + at.upper().replace(".", "__").replace("-", "_")
            raise ConfigError(
                f"{where}: `{at}` is a secret and must not stand in the file; write "
                f'{key} = {{ file = "PATH" }} or {key} = {{ env = "NAME" }}, or set {variable}'
            )


def _resolved(value: Any, home: Path, environment: Mapping[str, str], steps: tuple[str, ...]) -> Any:
    """Replace secret references `{file = ...}` and `{env = ...}` by what they name."""
    if not isinstance(value, dict):
        return value
    if steps and _is_secret(steps) and len(value) == 1:
        (kind, name), *_ = value.items()
        at = ".".join(steps)
        if kind == "env":
            if str(name) not in environment:
                raise ConfigError(f"`{at}`: the environment has no {name}")
            return environment[str(name)]
        if kind == "file":
            try:
                return (home / Path(str(name)).expanduser()).read_text().strip()
            except (OSError, UnicodeDecodeError) as failure:
                raise ConfigError(f"`{at}`: cannot read {name}: {failure}") from failure
    return {key: _resolved(inner, home, environment, (*steps, key)) for key, inner in value.items()}
