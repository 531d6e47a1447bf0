"""`[notify.NAME]`: secrets by reference only, errors that name the key and no value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.guests_calls import put_caller

from gateway.app.notifications import read_channel
from gateway.config import Loaded, load
from gateway.core.errors import ConfigError
from gateway.extensions.discovery import extension_manager, notifier_kinds
from gateway.extensions.hookspecs import NotifierKind
from gateway.operations.check import Finding, check_all

CANARY = "canary-0123456789"
KINDS = notifier_kinds(extension_manager([]))


def loaded(folder: Path, text: str, **environment: str) -> Loaded:
    path = folder / "gateway.toml"
    path.write_text(text)
    return load(path, environment)


def test_a_secret_in_the_file_is_refused_with_the_ways_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        loaded(tmp_path, f'[notify.ops.secrets]\nurl = "{CANARY}"')
    assert CANARY not in str(refusal.value)
    for words in ("notify.ops.secrets.url", "env =", "file =", "GATEWAY__NOTIFY__OPS__SECRETS__URL"):
        assert words in str(refusal.value)


def test_secrets_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{CANARY}\n")
    text = '[notify.ops.secrets]\nurl = { env = "HOOK" }\nkey = { file = "key" }'
    environment = {"HOOK": "https://h/x", "GATEWAY__NOTIFY__OPS__SECRETS__NUMBER": "1e5"}
    read = loaded(tmp_path, text, **environment)
    assert read.config.notify["ops"]["secrets"] == {"url": "https://h/x", "key": CANARY, "number": "1e5"}
    with pytest.raises(ConfigError, match="HOOK"):
        loaded(tmp_path, '[notify.ops.secrets]\nurl = { env = "HOOK" }')


def entry(**changes: Any) -> dict[str, Any]:
    return {"type": "plugin", "plugin": "dingtalk", "secrets": {"url": CANARY}} | changes


def test_a_channel_is_read_with_its_defaults() -> None:
    kind, config = read_channel("ops", entry(queue=7), KINDS)
    assert kind is KINDS["plugin"]
    assert (config.queue, config.rate_per_min) == (7, 20)
    assert CANARY not in repr(config)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({}, "notify.ops: has no `type`"),
        ({"type": "plugn"}, "did you mean `plugin`"),
        ({"type": "plugin"}, "plugin"),
        (entry(plugin="Ding Talk"), "plugin"),
        (entry(queue=0), "queue"),
        (entry(rate_per_mn=5), "did you mean `rate_per_min`"),
        (entry(secrets={"url": ""}), "secrets"),
        (entry(secrets={"url": CANARY * 1000}), "secrets"),
        (entry(secrets={"url": {"env": "A", "file": "B"}}), "secrets"),
        (entry(first_retry_s=-1.0), "first_retry_s"),
    ],
)
def test_a_wrong_channel_names_its_key_and_no_secret(plain: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_channel("ops", plain, KINDS)
    assert words in str(refusal.value)
    assert CANARY not in str(refusal.value)


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
def test_a_name_is_short_and_printable(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        read_channel(name, entry(), KINDS)


def test_an_extensions_kind_without_a_channels_configuration_is_refused() -> None:
    class Strange(msgspec.Struct):
        type: str = ""

    with pytest.raises(ConfigError, match="no configuration of a channel"):
        read_channel("ops", {"type": "odd"}, {"odd": NotifierKind(Strange, Strange)})


CHANNELS = """
[plugins]
dirs = ["plugins"]
{more}
[notify.ops]
type = "plugin"
plugin = "chat"
[notify.ops.secrets]
url = {{ env = "HOOK" }}
[notify.bad]
type = "x"
"""


def checked(folder: Path, more: str) -> dict[str, Finding]:
    read = loaded(folder, CHANNELS.format(more=more), HOOK=f"https://h.example/{CANARY}")
    return {finding.what: finding for finding in check_all(read)}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('[wasm.grants]\nchat = ["emit"]\n[outbound]\nallow = ["h.example"]', ""),
        ('[wasm.grants]\nchat = ["emit"]', 'add "h.example" to [outbound] allow'),
        ('[wasm.grants]\nchat = []\n[outbound]\nallow = ["h.example"]', "[wasm.grants] chat"),
    ],
)
def test_gateway_check_says_what_a_channel_lacks(tmp_path: Path, more: str, words: str) -> None:
    folder = put_caller(tmp_path / "plugins", "chat", kind="notify")
    with (folder / "plugin.toml").open("a") as manifest:
        manifest.write("[caps]\nemit = true\n")
    found = checked(tmp_path, more)
    assert found["channel ops"].ok == (not words)
    assert words in found["channel ops"].detail
    assert CANARY not in str(found)
    assert not found["channel bad"].ok
    assert "notify.bad" in found["channel bad"].detail


def test_gateway_check_says_that_a_channels_plugin_is_missing(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    finding = checked(tmp_path, "")["channel ops"]
    assert (finding.ok, "no plugin 'chat'" in finding.detail) == (False, True)


def test_gateway_check_reads_the_list_of_hosts(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    for host in ("https://h.example", "169.254.169.254"):
        finding = checked(tmp_path, f'[outbound]\nallow = ["{host}"]')["outbound"]
        assert (finding.ok, host in finding.detail) == (False, True)
