import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError, Rejected
from gateway.wasm.signing import Trust, key_id, make_key, sign, statement

FILES = {"plugin.toml": b'id = "meter"', "meter.wasm": b"\0asm", "README.md": b"# Meter"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("keys") / "acme.key"
    return path, make_key(path)


def signed(key: tuple[Path, str]) -> dict[str, bytes]:
    signature, _ = sign(FILES, key[0])
    return {**FILES, "plugin.sig": signature}


def test_a_signature_by_a_trusted_key_names_its_signer(key: tuple[Path, str]) -> None:
    signer = Trust({"acme": key[1]}, require_signed=True).admit(signed(key))
    assert signer is not None
    assert (str(signer), signer.trusted) == ("acme", True)


def test_what_is_signed_is_every_other_file_by_name_and_digest() -> None:
    lines = statement({**FILES, "plugin.sig": b"whatever"}).decode().splitlines()
    assert lines[0] == "flux-gateway plugin signature 1"
    assert [line.split("  ")[1] for line in lines[1:]] == sorted(FILES)
    assert lines[1].startswith("9c1a8897cea39a2e")  # sha256sum README.md


@pytest.mark.parametrize(
    "change",
    [
        {"meter.wasm": b"\0asn"},
        {"plugin.toml": b'id = "meter" '},
        {"README.md": b"\0asm", "meter.wasm": b"# Meter"},
        {"LICENSE": b""},
    ],
)
def test_a_changed_swapped_or_added_file_makes_the_signature_wrong(
    key: tuple[Path, str], change: dict[str, bytes]
) -> None:
    for required in (False, True):
        with pytest.raises(Rejected, match="changed after it was signed"):
            Trust({"acme": key[1]}, require_signed=required).admit({**signed(key), **change})


def test_a_removed_file_makes_the_signature_wrong(key: tuple[Path, str]) -> None:
    files = signed(key)
    del files["README.md"]
    with pytest.raises(Rejected):
        Trust({"acme": key[1]}).admit(files)


def test_an_unknown_key_is_shown_as_unknown_and_refused_where_a_known_one_is_asked_for(key: tuple[Path, str]) -> None:
    signer = Trust().admit(signed(key))
    assert signer is not None
    assert (str(signer), signer.trusted) == (f"unknown key {key_id(base64.b64decode(key[1]))}", False)
    with pytest.raises(Rejected, match=r"add the public key to \[plugins.trusted\]"):
        Trust(require_signed=True).admit(signed(key))


def test_no_signature_is_refused_only_where_one_is_asked_for() -> None:
    assert Trust().admit(FILES) is None
    with pytest.raises(Rejected, match="gateway plugin sign PACKAGE"):
        Trust(require_signed=True).admit(FILES)


def test_another_key_under_a_trusted_id_is_wrong(key: tuple[Path, str], tmp_path: Path) -> None:
    make_key(tmp_path / "other.key")
    forged = json.loads(sign(FILES, tmp_path / "other.key")[0])
    forged["key_id"] = json.loads(signed(key)["plugin.sig"])["key_id"]
    with pytest.raises(Rejected, match="wrong"):
        Trust({"acme": key[1]}).admit({**FILES, "plugin.sig": json.dumps(forged).encode()})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b'{"algorithm": "rsa", "key_id": "0123456789abcdef", "signature": ""}',
        b'{"algorithm": "ed25519", "key_id": "short", "signature": ""}',
        b'{"algorithm": "ed25519", "key_id": "0123456789ABCDEF", "signature": ""}',
        b'{"algorithm": "ed25519", "key_id": "0123456789abcdef", "signature": "", "more": 1}',
        b"[" * 4000,
        b" " * 5000,
    ],
)
def test_a_malformed_signature_is_refused_whatever_is_asked_for(content: bytes) -> None:
    with pytest.raises(Rejected, match=r"plugin\.sig"):
        Trust().admit({**FILES, "plugin.sig": content})


@given(signature=st.text(max_size=120))
def test_any_text_in_place_of_a_signature_is_wrong(key: tuple[Path, str], signature: str) -> None:
    document = {"algorithm": "ed25519", "key_id": key_id(base64.b64decode(key[1])), "signature": signature}
    with pytest.raises(Rejected):
        Trust({"acme": key[1]}).admit({**FILES, "plugin.sig": json.dumps(document).encode()})


@pytest.mark.parametrize("text", ["", "x", "AAAA", "!" * 44, "é" * 44, base64.b64encode(bytes(33)).decode()])
def test_a_trusted_key_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"plugins\.trusted\.acme"):
        Trust({"acme": text})


def test_one_key_under_two_names_is_refused(key: tuple[Path, str]) -> None:
    with pytest.raises(ConfigError, match="the same key as acme"):
        Trust({"acme": key[1], "again": key[1]})


def test_a_private_key_is_for_its_owner_alone_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "acme.key"
    old = os.umask(0)
    try:
        make_key(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    with pytest.raises(ConfigError, match="never overwritten"):
        make_key(path)


def test_a_key_that_others_can_read_does_not_sign(tmp_path: Path) -> None:
    path = tmp_path / "acme.key"
    make_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        sign(FILES, path)


def test_a_key_file_that_is_none_says_so_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "x.key"
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    curve = generate_private_key(SECP256R1()).private_bytes(encoding, form, serialization.NoEncryption())
    locked = Ed25519PrivateKey.generate().private_bytes(encoding, form, serialization.BestAvailableEncryption(b"pw"))
    for content, why in ((b"canary", "no private key"), (curve, "no Ed25519 key"), (locked, "without a passphrase")):
        path.touch(mode=0o600)
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=why) as refused:
            sign(FILES, path)
        assert "canary" not in str(refused.value)
    with pytest.raises(ConfigError, match="gateway plugin keygen"):
        sign(FILES, tmp_path / "missing.key")


def test_a_signature_is_the_same_each_time(key: tuple[Path, str]) -> None:
    assert sign(FILES, key[0]) == sign(dict(reversed(FILES.items())), key[0])


def test_the_library_is_loaded_by_the_first_signature_alone() -> None:
    program = (
        "import sys; from gateway.wasm.signing import Trust; Trust().admit({}); sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
