"""Thing models and products as files, JSON or TOML by their ending.

Owns reading them, with errors that name the file, the place in it and what is wrong. Does not watch files.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from gateway.core.errors import ConfigError, Rejected
from gateway.core.plain import typed
from gateway.core.scope import DEFAULT_TENANT
from gateway.things.model import FieldMapping, Product, ThingModel
from gateway.things.validation import check_model, check_product

MOST_BYTES: Final = 4 << 20
"""Largest file read: a model of 1,024 properties with long descriptions is a fourth of it."""


class ProductFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A product as a file. `model` is a thing model, or the path of its file from this one on."""

    id: str
    name: str = ""
    plugin_id: str | None = None
    registration: Literal["auto", "preregistered"] = "preregistered"
    authentication: Literal["optional", "required"] = "optional"
    model: ThingModel | str = ThingModel()
    mapping: tuple[FieldMapping, ...] = ()
    retention_days: float | None = None
    enabled: bool = True


def load_model(path: Path) -> ThingModel:
    """Read and check a thing model. Raises ConfigError."""
    model = typed(_plain(path), ThingModel, str(path))
    try:
        check_model(model)
    except Rejected as wrong:
        raise ConfigError(f"{path}: {wrong}") from wrong
    return model


def load_product(path: Path, tenant_id: str = DEFAULT_TENANT) -> Product:
    """Read and check a product, for `Catalog.reconcile`. Raises ConfigError."""
    file = typed(_plain(path), ProductFile, str(path))
    fields = msgspec.structs.asdict(file)
    if isinstance(file.model, str):
        fields["model"] = load_model(path.parent / file.model)
    product = Product(tenant_id=tenant_id, source="file", **fields)
    try:
        check_product(product)
    except Rejected as wrong:
        raise ConfigError(f"{path}: {wrong}") from wrong
    return product


def _plain(path: Path) -> Any:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ConfigError(f"{path}: {size} bytes; at most {MOST_BYTES}")
        text = path.read_bytes().decode()
    except OSError as failure:
        raise ConfigError(f"{path}: {failure.strerror or failure}") from failure
    except UnicodeDecodeError as failure:
        raise ConfigError(f"{path}: not UTF-8 at byte {failure.start}") from failure
    try:
        return tomllib.loads(text) if path.suffix == ".toml" else msgspec.json.decode(text)
    except (tomllib.TOMLDecodeError, msgspec.DecodeError, RecursionError) as failure:
        raise ConfigError(f"{path}: {failure}") from failure
