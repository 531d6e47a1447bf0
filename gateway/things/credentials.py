"""Device credentials: how they are issued, hashed and proved.

Owns the gateway's device key and the policy of registration and authentication. Does not store digests: the pipeline
commits what a device shows, the catalog what an operator sets.

The policy
- A device without a credential that registers gets a code, derived from the key and the device, and gets the same one
  whenever it registers again: terminals register after every loss of power.
- A device whose own credential was adopted may register too and gets a code instead: a terminal that was reset has
  forgotten the old one, and whoever may register anew could have done so before.
- A device whose credential the operator set cannot register: registering needs no proof, so that a stranger would get
  a valid code. The operator resets it (`Catalog.set_credential(scope, id, None)`).
- A device without a credential that authenticates is right if it shows the code that it would be issued. In a product
  with registration `auto` it may show anything: the first use is trusted and adopted.
- A disabled device or product is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from gateway.core.errors import ConfigError, Rejected
from gateway.things.model import Device, Product

MOST_CHARS: Final = 256
"""Longest credential taken: above it, hashing is work that a stranger orders."""

_KEY_BYTES: Final = 32
_CODE_BYTES: Final = 15  # 120 bits, 24 letters and digits: JT/T 808 and its kin carry 32 at least


class Credentials:
    """Issues and proves device credentials with one key."""

    def __init__(self, key: bytes) -> None:
        """Use a key of 32 bytes."""
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a device key has {_KEY_BYTES} bytes")
        self._key = key

    @classmethod
    def open(cls, data_dir: Path) -> Credentials:
        """Read `keys/device.key`, made at the first start. Raises ConfigError where it cannot be trusted."""
        return cls(load_key(data_dir / "keys" / "device.key"))

    def digest(self, credential: str) -> str:
        """Keyed hash of a credential, for storage: useless without the key."""
        return self._mac(b"credential", credential).hex()

    def issue(self, device: Device) -> str:
        """The code of a device: 24 lower-case letters and digits; a device that is created again gets another."""
        code = self._mac(b"issue", device.tenant_id, device.id, str(device.key))[:_CODE_BYTES]
        return base64.b32encode(code).decode().lower()

    def verify(self, device: Device, credential: str) -> bool:
        """Whether this is the device's credential, in constant time. False for a device without one."""
        if device.credential_digest is None or not 1 <= len(credential) <= MOST_CHARS:
            return False
        return hmac.compare_digest(self.digest(credential), device.credential_digest)

    def on_register(self, device: Device) -> tuple[bool, str | None]:
        """Whether a registration is admitted, and the code to tell the device."""
        if not device.enabled or device.credential_source == "operator":
            return False, None
        return True, self.issue(device)

    def on_authenticate(self, product: Product, device: Device, presented: str) -> bool:
        """Whether what a device presents is right, or may be adopted as its first credential."""
        if not (product.enabled and device.enabled) or not 1 <= len(presented) <= MOST_CHARS:
            return False
        if device.credential_digest is not None:
            return self.verify(device, presented)
        if hmac.compare_digest(presented.encode(errors="replace"), self.issue(device).encode()):
            return True
        return product.registration == "auto"

    def checked(self, credential: str) -> str:
        """Digest of a credential that an operator chose; raises Rejected where no device could present it."""
        if not 1 <= len(credential) <= MOST_CHARS or not credential.isprintable():
            raise Rejected(f"credential: 1 to {MOST_CHARS} printable characters")
        return self.digest(credential)

    def _mac(self, purpose: bytes, *parts: str) -> bytes:
        mac = hmac.new(self._key, purpose, hashlib.sha256)
        for part in parts:
            text = part.encode(errors="surrogatepass")
            mac.update(len(text).to_bytes(4, "big") + text)
        return mac.digest()


def load_key(path: Path) -> bytes:
    """Read a secret key that only this user can read; make it where there is none. Raises ConfigError."""
    try:
        if not path.exists():
            _make_key(path)
        mode = path.stat().st_mode
        key = path.read_bytes()
    except OSError as failure:
        raise ConfigError(f"{path}: {failure.strerror}; the gateway must be able to read and make it") from failure
    if mode & 0o077:
        raise ConfigError(f"{path} can be read by other users; run: chmod 600 {path}")
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            f"{path} is damaged ({len(key)} bytes instead of {_KEY_BYTES}); restore it from a backup, or delete it and "
            "reset the credential of every device"
        )
    return key


def _make_key(path: Path) -> None:
    """Write a new key so that a crash or a second gateway never leaves half of one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was faster: its key counts
    finally:
        draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
