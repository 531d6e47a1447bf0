"""The thing model: what a product's devices report, can do and announce.

Terms follow the W3C Web of Things; units are UCUM codes. The JSON form is `schemas/thing-model.json`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec

PROPERTY_ID = r"^[A-Za-z_][A-Za-z0-9_.:-]{0,63}$"
"""What a property, function or event may be called; others a device reports are shed and counted."""

T = TypeVar("T")

ById: TypeAlias = Annotated[dict[str, T], msgspec.Meta(extra_json_schema={"propertyNames": {"pattern": PROPERTY_ID}})]
"""Members by their id. The pattern is for the schema's readers; `validation.py` says better what is wrong."""

DataType = Literal["bool", "int", "float", "string", "enum", "datetime", "object", "array"]


class Property(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reported quantity, or one argument of a function, or one field of an event.

    type: JSON type of the value; `datetime` is RFC 3339 text, `enum` one of `values`.
    name: title for people.
    unit: UCUM code such as `Cel`, `km/h`, `mm[Hg]`; for int, float and array.
    minimum, maximum: inclusive bounds in `unit`, for int and float; a value outside is kept as `out_of_range`.
    max_length: characters of a string.
    values: members of an enum, at most 256.
    writable: whether a command may set it.
    """

    type: DataType
    name: str = ""
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    values: tuple[str | int, ...] = ()
    writable: bool = False
    description: str = ""


class Function(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something a device can be told to do; `inputs` describes the arguments."""

    name: str = ""
    inputs: ById[Property] = {}
    description: str = ""


class EventType(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something a device announces."""

    name: str = ""
    level: Literal["info", "warning", "critical"] = "info"
    data: ById[Property] = {}
    description: str = ""


class ThingModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Properties, functions, events and tags of a product, by id."""

    properties: ById[Property] = {}
    functions: ById[Function] = {}
    events: ById[EventType] = {}
    tags: dict[str, str] = {}


class FieldMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Declarative cleaning of one field before the thing model sees it: value * scale + offset, then renamed.

    field: name as the plugin reports it.
    rename: property id that it becomes; a mapped field wins over an unmapped one of that name.
    scale, offset: applied to numbers; whole ones keep integers exact.
    """

    field: str
    rename: str | None = None
    scale: float = 1.0
    offset: float = 0.0


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of device.

    registration: `auto` admits a device nobody registered, `preregistered` refuses it.
    authentication: `required` sheds reports until the device proved its credential; `optional` takes them unless a
        proof failed.
    stages: names of the stages that frames pass ahead of the plugin, and what it encodes after it.
    retention_days: history older than this is deleted; None keeps it.
    source: who declared it; what a file declares is changed in the file, not through the API.
    """

    tenant_id: str
    id: str
    name: str = ""
    plugin_id: str | None = None
    stages: tuple[str, ...] = ()
    registration: Literal["auto", "preregistered"] = "preregistered"
    authentication: Literal["optional", "required"] = "optional"
    model: ThingModel = ThingModel()
    mapping: tuple[FieldMapping, ...] = ()
    retention_days: float | None = None
    enabled: bool = True
    source: Literal["api", "file"] = "api"
    created_at_ms: int = 0
    updated_at_ms: int = 0


class Device(msgspec.Struct, kw_only=True):
    """One device. `key` is the surrogate by which history rows name it; it never leaves the process.

    credential_digest: keyed hash of the device's credential; None while it has none.
    credential_source: `issued` by the gateway at registration, `adopted` at first use, `operator` set by a person.
    """

    key: int
    tenant_id: str
    id: str
    product_id: str
    name: str = ""
    tags: dict[str, str] = {}
    enabled: bool = True
    credential_digest: str | None = None
    credential_source: Literal["issued", "adopted", "operator"] | None = None
    online: bool = False
    last_seen_ms: int | None = None
    created_at_ms: int = 0
    updated_at_ms: int = 0


class Command(msgspec.Struct, kw_only=True):
    """A function invoked on a device, with its way so far. Times are epoch milliseconds.

    result: what the device's reply decoded to, once it answered.
    """

    id: str
    tenant_id: str
    device_id: str
    name: str
    args: dict[str, Any] = {}
    status: Literal["queued", "sent", "acknowledged", "failed", "timeout", "expired"] = "queued"
    error: str = ""
    result: dict[str, Any] | None = None
    requested_by: str = ""
    timeout_s: float = 10.0
    created_at_ms: int = 0
    sent_at_ms: int | None = None
    ended_at_ms: int | None = None
