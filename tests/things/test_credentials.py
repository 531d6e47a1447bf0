import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError, Rejected
from gateway.things.credentials import MOST_CHARS, Credentials, load_key
from gateway.things.model import Device, Product

CREDENTIALS = Credentials(bytes(range(32)))
AUTO = Product(tenant_id="default", id="p", registration="auto")
KNOWN = Product(tenant_id="default", id="p", registration="preregistered")


def device(**fields: Any) -> Device:
    return Device(**{"key": 7, "tenant_id": "default", "id": "014450376202", "product_id": "p", **fields})


def holding(credential: str, source: str = "issued", **fields: Any) -> Device:
    return device(credential_digest=CREDENTIALS.digest(credential), credential_source=source, **fields)


def test_an_issued_code_fits_a_jt808_terminal_and_is_the_same_each_time() -> None:
    code = CREDENTIALS.issue(device())
    assert code == CREDENTIALS.issue(device())
    assert len(code) == 24
    assert code.isascii()
    assert code.isalnum()


def test_codes_differ_by_tenant_device_key_and_gateway() -> None:
    others = [device(tenant_id="b"), device(id="x"), device(key=8), device(tenant_id="defaul", id="t014450376202")]
    codes = {CREDENTIALS.issue(each) for each in [device(), *others]} | {Credentials(bytes(32)).issue(device())}
    assert len(codes) == 6


def test_a_digest_does_not_hold_the_credential_and_needs_the_key() -> None:
    digest = CREDENTIALS.digest("secret")
    assert "secret" not in digest
    assert digest != Credentials(bytes(32)).digest("secret")


@given(st.text(max_size=300), st.text(min_size=1, max_size=20))
def test_only_the_credential_itself_verifies(presented: str, held: str) -> None:
    assert CREDENTIALS.verify(holding(held), presented) == (presented == held)
    assert not CREDENTIALS.verify(device(), presented)


def test_registering_again_gives_the_same_code() -> None:
    accepted, code = CREDENTIALS.on_register(device())
    assert accepted
    assert code is not None
    assert CREDENTIALS.on_register(holding(code)) == (True, code)


def test_a_stranger_gets_no_code_by_registering_as_a_device_whose_credential_the_operator_set() -> None:
    assert CREDENTIALS.on_register(holding("own", "operator")) == (False, None)


def test_a_terminal_that_was_reset_registers_again_although_its_first_code_was_adopted() -> None:
    forgetful = holding("own", "adopted")
    assert CREDENTIALS.on_register(forgetful) == (True, CREDENTIALS.issue(forgetful))


def test_a_disabled_device_neither_registers_nor_authenticates() -> None:
    assert CREDENTIALS.on_register(device(enabled=False)) == (False, None)
    assert not CREDENTIALS.on_authenticate(AUTO, holding("a", enabled=False), "a")
    disabled = Product(tenant_id="default", id="p", registration="auto", enabled=False)
    assert not CREDENTIALS.on_authenticate(disabled, holding("a"), "a")


def test_the_first_use_is_trusted_only_where_devices_register_themselves() -> None:
    assert CREDENTIALS.on_authenticate(AUTO, device(), "anything")
    assert not CREDENTIALS.on_authenticate(KNOWN, device(), "anything")
    assert CREDENTIALS.on_authenticate(KNOWN, device(), CREDENTIALS.issue(device()))


def test_after_the_first_use_only_the_same_credential_is_right() -> None:
    for product in (AUTO, KNOWN):
        assert CREDENTIALS.on_authenticate(product, holding("own", "adopted"), "own")
        assert not CREDENTIALS.on_authenticate(product, holding("own", "adopted"), "other")
        assert not CREDENTIALS.on_authenticate(product, holding("own", "operator"), CREDENTIALS.issue(device()))


@pytest.mark.parametrize("presented", ["", "x" * (MOST_CHARS + 1)])
def test_no_credential_and_a_huge_one_are_never_right(presented: str) -> None:
    assert not CREDENTIALS.on_authenticate(AUTO, device(), presented)


@pytest.mark.parametrize("credential", ["", "x" * (MOST_CHARS + 1), "a\nb"])
def test_an_operator_cannot_set_what_no_device_can_present(credential: str) -> None:
    with pytest.raises(Rejected):
        CREDENTIALS.checked(credential)


# The key


def test_the_key_is_made_once_for_this_user_only(tmp_path: Path) -> None:
    first = Credentials.open(tmp_path)
    path = tmp_path / "keys" / "device.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert Credentials.open(tmp_path).digest("a") == first.digest("a")
    assert os.listdir(path.parent) == ["device.key"]  # noqa: PTH208 - names only


def test_each_gateway_has_a_key_of_its_own(tmp_path: Path) -> None:
    assert load_key(tmp_path / "a") != load_key(tmp_path / "b")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    load_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(path)


def test_a_damaged_key_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="5 bytes instead of 32"):
        load_key(path)
    assert path.read_bytes() == b"short"


def test_a_place_that_cannot_hold_a_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file, no folder")
    with pytest.raises(ConfigError, match="keys"):
        Credentials.open(tmp_path)


def test_a_key_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Credentials(b"short")
