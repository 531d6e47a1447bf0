from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from gateway.core.errors import ConfigError
from gateway.wasm.manifest import MOST_DEPTH, Manifest, load_manifest, load_vectors, parse_manifest

_LEAST = {"id": "meter", "version": "1.0", "license": "Apache-2.0"}
_REPOSITORY = Path(__file__).parents[2]


def write(tmp_path: Path, text: str, name: str = "meter") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "plugin.toml").write_text(text)
    return folder


def test_the_least_manifest_has_the_documented_defaults() -> None:
    manifest = parse_manifest(dict(_LEAST), "here")
    assert manifest.wasm_name == "meter.wasm"
    assert manifest.kind == "codec"
    assert manifest.limits.deadline_ms == 20
    assert manifest.caps.asked() == frozenset()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"licence": "MIT"}, "unknown key `licence`; did you mean `license`"),
        ({"limits": {"deadline": 5}}, "unknown key `limits.deadline`; did you mean `deadline_ms`"),
        ({"caps": {"network": True}}, "unknown key `caps.network`"),
        ({"test": [{"frame": "00", "expekt": 1}]}, r"unknown key `test\[...\].expekt`|unknown key .*expekt"),
        ({"limits": {"deadline_ms": 5000}}, "1000"),
        ({"limits": {"memory_mib": 4096}}, "256"),
        ({"kind": "codek"}, "kind"),
        ({"abi": "gw2"}, "abi"),
        ({"id": "Meter"}, "id"),
        ({"id": "../meter"}, "id"),
        ({"id": "meter\n"}, "id"),
        ({"file": "meter.wasm\n"}, "file"),
        ({"file": "../other/evil.wasm"}, "file|leaves the plugin's folder"),
        ({"file": "a/../../evil.wasm"}, "leaves the plugin's folder"),
        ({"build": {"sources": ["a/../../x.c"]}}, "leaves the plugin's folder"),
        ({"build": {"generated": {"a/../../../../tmp/x.h": "tables.py"}}}, "leaves the plugin's folder"),
        ({"build": {"generated": {"tables.h": "a/../../tables.py"}}}, "leaves the plugin's folder"),
        ({"test": [{"vectors": "a/../../x.json"}]}, "leaves the plugin's folder"),
        ({"sha256": "abc"}, "sha256"),
        ({"test": [{"expect": 1}]}, "give exactly one of frame, frame_hex, encode, call and vectors"),
        ({"test": [{"frame": "00", "frame_hex": "00", "expect": 1}]}, "give exactly one of frame"),
        ({"test": [{"frame": "00"}]}, "exactly one of expect"),
        ({"test": [{"frame": "00", "expect": 1, "error": 3}]}, "exactly one of expect"),
        ({"test": [{"frame": "00", "error": 3, "drop": True}]}, "exactly one of expect"),
        ({"test": [{"encode": {}}]}, "exactly one of hex or error"),
        ({"test": [{"frame": "0", "expect": 1}]}, "frame"),
        ({"test": [{"frame": "zz", "expect": 1}]}, "frame"),
    ],
)
def test_a_wrong_manifest_names_the_key(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_manifest({**_LEAST, **change}, "here")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="license"):
        parse_manifest({"id": "meter", "version": "1"}, "here")


def test_the_folder_must_be_called_like_the_plugin(tmp_path: Path) -> None:
    folder = write(tmp_path, 'id = "other"\nversion = "1"\nlicense = "MIT"')
    with pytest.raises(ConfigError, match="'other', but the folder is called 'meter'"):
        load_manifest(folder)


@pytest.mark.parametrize("data", [b"id = ", b"\xff\xfe", b"id = 1\nid = 2"])
def test_what_is_not_toml_names_the_file(tmp_path: Path, data: bytes) -> None:
    folder = write(tmp_path, "")
    (folder / "plugin.toml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"plugin\.toml: not valid TOML"):
        load_manifest(folder)


def test_a_missing_manifest_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plugin\.toml: cannot be read"):
        load_manifest(tmp_path)


def test_a_vectors_file_takes_its_defaults_from_the_entry_that_names_it(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        "\n".join(f'{key} = "{value}"' for key, value in _LEAST.items())
        + '\n[[test]]\nvectors = "v.json"\nwire = true\naux = 3\n',
    )
    (folder / "v.json").write_text(
        json.dumps(
            {"vectors": [{"frame_hex": "7E", "expect": {"a": None}}, {"frame": "00", "wire": False, "error": 3}]}
        )
    )
    first, second = load_vectors(load_manifest(folder), folder)
    assert (first.frame_bytes, first.wire, first.aux, first.expect) == (b"\x7e", True, 3, {"a": None})
    assert (second.frame_bytes, second.wire, second.error) == (b"\x00", False, 3)
    assert first.name == "v.json 1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("{}", "must be a list"),
        ("[1]", "vector 1"),
        ('[{"frame": "00"}]', "vector 1: say what must come out"),
        ('[{"vectors": "w.json"}]', "vector 1: a vectors file cannot name another one"),
        ('[{"frame": "00", "expct": 1}]', "vector 1: unknown key `expct`; did you mean `expect`"),
    ],
)
def test_a_wrong_vectors_file_names_the_place(tmp_path: Path, text: str, says: str) -> None:
    folder = write(
        tmp_path, "\n".join(f'{key} = "{value}"' for key, value in _LEAST.items()) + '\n[[test]]\nvectors = "v.json"\n'
    )
    (folder / "v.json").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_vectors(load_manifest(folder), folder)


def test_a_missing_vectors_file_is_named(tmp_path: Path) -> None:
    manifest = parse_manifest({**_LEAST, "test": [{"vectors": "none.json"}]}, "here")
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read"):
        load_vectors(manifest, tmp_path)


def test_the_json_schema_takes_every_shipped_manifest() -> None:
    import tomllib  # noqa: PLC0415 - one user

    schema = msgspec.json.schema(Manifest)
    folders = [*_REPOSITORY.glob("plugins/*/plugin.toml"), *_REPOSITORY.glob("bench/plugins/*/plugin.toml")]
    assert len(folders) >= 2
    for path in folders:
        jsonschema.validate(tomllib.loads(path.read_text()), schema)
        load_manifest(path.parent)


_NESTED = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (_NESTED, "nested too deeply"),
        (b'[{"frame": "00", "expect": ' + b"[" * 900 + b"]" * 900 + b"}]", "nested too deeply"),
        (b'[{"name": "\xff\xfe"}]', "not valid JSON"),
        (b'[{"encode": {"a": 99999999999999999999999999}, "error": 5}]', "outside of 64 bits"),
        (b'[{"encode": {"a": -9223372036854775809}, "error": 5}]', "outside of 64 bits"),
    ],
)
def test_hostile_vectors_are_a_refusal_that_says_what_to_do(tmp_path: Path, data: bytes, says: str) -> None:
    folder = write(
        tmp_path, "\n".join(f'{key} = "{value}"' for key, value in _LEAST.items()) + '\n[[test]]\nvectors = "v.json"\n'
    )
    (folder / "v.json").write_bytes(data)
    with pytest.raises(ConfigError, match=says):
        load_vectors(load_manifest(folder), folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[config]\na = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        (f"[config]\na = {'[' * MOST_DEPTH}{']' * MOST_DEPTH}", "nested too deeply"),
        ("[config]\na = 18446744073709551616", "outside of 64 bits"),
        ("[config]\na = " + "9" * 5000, "not valid TOML"),
    ],
)
def test_a_hostile_manifest_is_a_refusal_that_says_what_to_do(tmp_path: Path, text: str, says: str) -> None:
    folder = write(tmp_path, "\n".join(f'{key} = "{value}"' for key, value in _LEAST.items()) + f"\n{text}\n")
    with pytest.raises(ConfigError, match=says):
        load_manifest(folder)


def test_integers_of_64_bits_and_some_nesting_are_taken() -> None:
    config = {"most": 2**64 - 1, "least": -(2**63), "nested": [[[{"a": [1]}]]]}
    assert parse_manifest({**_LEAST, "config": config}, "here").config == config
