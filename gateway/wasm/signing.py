"""Signatures of plugins: Ed25519 over the exact bytes of every file, in `plugin.sig` beside them.

Owns key files, signing and the operator's trust. Knows neither archives nor where plugins are kept. The cryptography
library is loaded by the first signature that is made or checked: it costs memory.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from typing_extensions import override

from gateway.core.errors import ConfigError, Rejected

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_NAME: Final = "plugin.sig"
_DOMAIN: Final = b"flux-gateway plugin signature 1\n"
"""Begins what is signed, so that no signature made for another purpose fits."""
_MOST_BYTES: Final = 4096
_PUBLIC_BYTES: Final = 32
_KEY_ID_DIGITS: Final = 16


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `plugin.sig` holds, as JSON. `signature` is base64."""

    algorithm: Literal["ed25519"]
    key_id: str
    signature: str


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed: `name` is what the operator calls the key, None for a key that nobody vouches for."""

    key_id: str
    name: str | None

    @property
    def trusted(self) -> bool:
        """Whether the signature was checked with a key of the operator's."""
        return self.name is not None

    @override
    def __str__(self) -> str:
        return self.name if self.name is not None else f"unknown key {self.key_id}"


class Trust:
    """The operator's trusted keys, and whether a signature by one of them is asked for."""

    def __init__(self, trusted: Mapping[str, str] | None = None, *, require_signed: bool = False) -> None:
        """`trusted` holds public keys in base64, by name. Raises ConfigError for one that is none."""
        self.require_signed = require_signed
        self._keys: dict[str, tuple[str, bytes]] = {}
        for name, text in (trusted or {}).items():
            public = _public_key(name, text)
            other, _ = self._keys.setdefault(key_id(public), (name, public))
            if other != name:
                raise ConfigError(f"plugins.trusted.{name}: the same key as {other}; name it once")

    def signer(self, files: Mapping[str, bytes]) -> Signer | None:
        """Who signed these files, None where nobody did.

        Raises Rejected for a signature that is wrong; one by an unknown key cannot be checked and is not trusted.
        """
        if SIGNATURE_NAME not in files:
            return None
        signature = _read_signature(files[SIGNATURE_NAME])
        known = self._keys.get(signature.key_id)
        if known is None:
            return Signer(key_id=signature.key_id, name=None)
        name, public = known
        _verify(public, signature, statement(files))
        return Signer(key_id=signature.key_id, name=name)

    def admit(self, files: Mapping[str, bytes]) -> Signer | None:
        """The signer of files that may be installed; raises Rejected where the operator's policy refuses them."""
        signer = self.signer(files)
        if not self.require_signed or (signer is not None and signer.trusted):
            return signer
        if signer is None:
            raise Rejected(
                "the package is not signed, and [plugins] require_signed asks for it; "
                "its maker signs it with: gateway plugin sign PACKAGE --key FILE"
            )
        raise Rejected(
            f"the package is signed by the unknown key {signer.key_id}, and [plugins] require_signed asks for a known "
            "one; if you trust its maker, add the public key to [plugins.trusted]"
        )


def statement(files: Mapping[str, bytes]) -> bytes:
    """What is signed: a line for the purpose, then `<sha256>  <name>` of every other file, in order of the names."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files) if name != SIGNATURE_NAME)
    return _DOMAIN + "".join(lines).encode()


def key_id(public: bytes) -> str:
    """Short name of a public key: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:_KEY_ID_DIGITS]


def make_key(path: Path) -> str:
    """Make a private key in a new file (PEM, PKCS #8, mode 0600); returns the public key in base64.

    Raises ConfigError where the file is there already or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see the module's docstring
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise ConfigError(f"{path} is there already; a key is never overwritten: name another file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return _public_text(key)


def sign(files: Mapping[str, bytes], key_file: Path) -> tuple[bytes, str]:
    """The content of `plugin.sig` for these files, and the signer's public key in base64. Raises ConfigError."""
    key = _private_key(key_file)
    public = _public_text(key)
    signature = Signature(
        algorithm="ed25519",
        key_id=key_id(base64.b64decode(public)),
        signature=base64.b64encode(key.sign(statement(files))).decode(),
    )
    return msgspec.json.format(msgspec.json.encode(signature)) + b"\n", public


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see the module's docstring
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above

    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(f"{path} can be read by other users; run: chmod 600 {path}")
        with path.open("rb") as file:
            pem = file.read(_MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; make a key with: gateway plugin keygen NAME") from error
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the library's words may quote the file
        raise ConfigError(f"{path} is no private key in PEM without a passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is no Ed25519 key; make one with: gateway plugin keygen NAME")
    return key


def _public_text(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def _public_key(name: str, text: str) -> bytes:
    try:
        public = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        public = b""
    if len(public) != _PUBLIC_BYTES:
        raise ConfigError(
            f"plugins.trusted.{name}: not an Ed25519 public key: {_PUBLIC_BYTES} bytes in base64, as "
            "`gateway plugin keygen` prints it"
        )
    return public


def _read_signature(data: bytes) -> Signature:
    if len(data) > _MOST_BYTES:
        raise Rejected(f"{SIGNATURE_NAME}: larger than {_MOST_BYTES} bytes")
    try:
        signature = msgspec.json.decode(data, type=Signature)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"{SIGNATURE_NAME}: {error}; sign again with: gateway plugin sign") from error
    if len(signature.key_id) != _KEY_ID_DIGITS or not set(signature.key_id) <= set("0123456789abcdef"):
        raise Rejected(f"{SIGNATURE_NAME}: key_id is {_KEY_ID_DIGITS} hexadecimal digits")
    return signature


def _verify(public: bytes, signature: Signature, signed: bytes) -> None:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see the module's docstring
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as above

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(signature.signature, validate=True), signed)
    except (InvalidSignature, binascii.Error, ValueError):
        raise Rejected(
            f"the signature by key {signature.key_id} is wrong: a file was changed after it was signed; "
            "get the package anew from its maker"
        ) from None
