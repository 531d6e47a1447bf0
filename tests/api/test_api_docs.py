from pathlib import Path

import msgspec
import pytest

from gateway.api.config import HttpConfig
from gateway.api.errors import HTTP_CODES, INTERNAL, STATUS
from gateway.api.routes import PREFIX, ROUTES
from gateway.identity.config import IdentityConfig
from gateway.identity.permissions import Permission

DOCUMENT = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ROUTES)
def test_every_route_is_documented(path: str) -> None:
    assert f"`{path.removeprefix(PREFIX)}`" in DOCUMENT


@pytest.mark.parametrize("code", Permission)
def test_every_permission_is_documented(code: str) -> None:
    assert f"`{code}`" in DOCUMENT


@pytest.mark.parametrize("config", [HttpConfig, IdentityConfig])
def test_every_setting_is_documented_with_its_default(config: type[msgspec.Struct]) -> None:
    for field in msgspec.structs.fields(config):
        row = next(line for line in DOCUMENT.splitlines() if line.startswith("| ") and f"`{field.name}`" in line)
        number = field.default
        shown = "none" if number is None else str(number).lower().removesuffix(".0")
        assert shown in row, field.name


def test_every_code_that_an_operator_may_look_up_is_documented() -> None:
    codes = {kind.code for kind in STATUS} | {"codec.trapped", INTERNAL[0]}
    rare = {"http.length_required", "http.expectation_failed", "http.headers_too_large"}
    codes |= {code for code, _ in HTTP_CODES.values()} - rare
    for code in codes:
        assert f"`{code}`" in DOCUMENT, code
