"""Secrets in the configuration: by reference, by the environment, and never in the file or an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.guests_calls import last_byte, put_caller

from gateway.config import Loaded, load
from gateway.core.errors import ConfigError
from gateway.operations.check import check_all

STAGE = '[stages.wire]\nplugin = "sm4"\n'
CANARY = "0123456789"


def loaded(tmp_path: Path, text: str, **environment: str) -> Loaded:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load(path, environment)


@pytest.mark.parametrize("how", ["env", "file", "overlay"])
def test_a_secret_in_a_secrets_table_is_what_its_reference_names(tmp_path: Path, how: str) -> None:
    (tmp_path / "key").write_text(f"{CANARY}\n")
    text, environment = {
        "env": ('secrets = { key = { env = "SM4_KEY" } }', {"SM4_KEY": CANARY}),
        "file": ('secrets = { key = { file = "key" } }', {}),
        "overlay": ("", {"GATEWAY__STAGES__WIRE__SECRETS__KEY": CANARY}),
    }[how]
    config = loaded(tmp_path, STAGE + text, **environment).config
    assert config.stages["wire"].secrets == {"key": CANARY}, "text, although it looks like a number"
    assert CANARY not in repr(config)


def test_a_secret_that_stands_in_a_secrets_table_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"`stages\.wire\.secrets\.key` is a secret .* GATEWAY__STAGES__WIRE"
    ) as caught:
        loaded(tmp_path, f'{STAGE}secrets = {{ key = "{CANARY}" }}')
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ('{ env = "NOT_THERE" }', "the environment has no NOT_THERE"),
        ('{ file = "not-there" }', "cannot read not-there"),
        ('{ vault = "x" }', "stages.wire.secrets"),
        ('{ env = "A", file = "b" }', "stages.wire.secrets"),
    ],
)
def test_a_reference_that_leads_nowhere_says_so(tmp_path: Path, reference: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        loaded(tmp_path, f"{STAGE}secrets = {{ key = {reference} }}")


def test_an_entry_that_is_called_secrets_has_no_secrets_because_of_its_name(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[products.secrets]\nname = "Safe"').config
    assert config.products["secrets"].name == "Safe"


def test_keys_that_end_like_secrets_are_references_as_ever(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="metrics_token"):
        loaded(tmp_path, '[http]\nmetrics_token = "plain"')
    assert loaded(tmp_path, '[http]\nmetrics_token = { env = "T" }', T="1234").config.http.metrics_token == "1234"


def findings(tmp_path: Path, text: str, **environment: str) -> dict[str, str]:
    """What `gateway check` says is wrong with stages and products."""
    found = check_all(loaded(tmp_path, f'{text}\n[plugins]\ndirs = ["plugins"]\n', **environment))
    return {one.what: one.detail for one in found if not one.ok and one.what.startswith(("stage", "product"))}


def test_check_finds_stages_that_cannot_be_and_products_that_name_none(tmp_path: Path) -> None:
    put_caller(tmp_path / "plugins", "cipher", kind="crypto", wasm=last_byte())
    put_caller(tmp_path / "plugins", "algo", kind="algo", wasm=last_byte())
    text = """
    [stages.good]
    plugin = "cipher"
    [stages.gone]
    plugin = "not-there"
    [stages.kind]
    plugin = "algo"
    [stages.key]
    plugin = "cipher"
    secrets = { key = { env = "KEY" } }
    [products.p]
    stages = ["good", "unknown"]
    [products.q]
    stages = ["good"]
    """
    found = findings(tmp_path, text, KEY=f"no hex: {CANARY}")
    assert found.keys() == {"stage gone", "stage kind", "stage key", "product p"}
    assert "no plugin 'not-there'" in found["stage gone"]
    assert "of kind algo" in found["stage kind"]
    assert "secrets.key: not hexadecimal" in found["stage key"]
    assert CANARY not in found["stage key"]
    assert "[stages.unknown]" in found["product p"]


def test_a_configuration_shown_whole_shows_no_secret(tmp_path: Path) -> None:
    text = '[notify.ops]\ntype = "plugin"\nplugin = "webhook"\nsecrets = { url = { env = "HOOK" } }\n'
    found = loaded(tmp_path, text, HOOK=CANARY)
    assert found.config.notify["ops"]["secrets"] == {"url": CANARY}
    assert CANARY not in f"{found!r} {found.config}"
