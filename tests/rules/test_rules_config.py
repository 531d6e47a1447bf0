"""Limits of rules and scenes that would stop the gateway or spin it are refused at its start, by their key."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from gateway.config import GatewayConfig
from gateway.core.errors import ConfigError
from gateway.core.plain import typed
from gateway.rules.config import RulesConfig, SandboxLimits, ScenesConfig
from gateway.rules.wire import ServeRules, ServeScenes, encoder, greeting_decoder

NUMBERS = [
    (section, name)
    for section, kind in (("rules", RulesConfig), ("scenes", ScenesConfig), ("rules.limits", SandboxLimits))
    for name, value in msgspec.structs.asdict(kind()).items()
    if isinstance(value, int | float)
]
MAY_BE_ZERO = {"log_lines", "catch_up_s"}


def config(section: str, name: str, value: Any) -> GatewayConfig:
    nested: dict[str, Any] = {name: value}
    for part in reversed(section.split(".")):
        nested = {part: nested}
    return typed(nested, GatewayConfig, "config.toml")


@pytest.mark.parametrize(("section", "name"), NUMBERS)
@pytest.mark.parametrize("value", [-1, 0, float("nan"), float("inf"), 10**18])
def test_a_limit_out_of_range_is_refused_by_its_key(section: str, name: str, value: float) -> None:
    if value == 0 and name in MAY_BE_ZERO:
        config(section, name, value)
        return
    with pytest.raises(ConfigError, match=re.escape(f"{section}.{name}")):
        config(section, name, value)


def test_what_is_set_by_default_is_in_range_and_reaches_the_workers() -> None:
    for greeting in (ServeRules(RulesConfig()), ServeScenes(ScenesConfig())):
        assert greeting_decoder.decode(encoder.encode(greeting)) == greeting
