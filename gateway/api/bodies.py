"""What request bodies share."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict


class Body(BaseModel):
    """A request body: unknown fields are errors, values are not guessed from other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _packable(value: dict[str, Any]) -> dict[str, Any]:
    try:
        msgspec.msgpack.encode(value)
    except OverflowError as wide:
        raise ValueError("numbers must fit into 64 bits") from wide
    return value


Arguments = Annotated[dict[str, Any], AfterValidator(_packable)]
"""Free arguments that travel on as msgpack, to a plugin or a script."""
