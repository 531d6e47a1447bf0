"""Fakes for the way of a frame: a connection, a codec of one-letter frames, a journal that commits when told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import CodecError, NotReady, PluginTrapped, Rejected, StorageFailed
from gateway.core.flow import Commit, Decoded, Notice, Point
from gateway.core.journal import Done
from gateway.things.model import Device, Product
from gateway.wasm.codec import TRAPPED, DecodeResult


class FakeClock(Clock):
    """A clock that moves when told."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.ms = now_ms
        self.s = 0.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.s

    def advance(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        self.s += seconds


class FakeConnection:
    """A peer that remembers what it was sent."""

    def __init__(self, product_id: str = "p", listener: str = "l", tenant_id: str = "default") -> None:
        self.listener = listener
        self.product_id = product_id
        self.tenant_id = tenant_id
        self.peer = "127.0.0.1:5"
        self.sent: list[bytes] = []
        self.close_reasons: list[str] = []
        self.holds: set[str] = set()

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self, reason: str) -> None:
        self.close_reasons.append(reason)

    def hold(self, why: str) -> None:
        self.holds.add(why)

    def release(self, why: str) -> None:
        self.holds.discard(why)


def ack_of(text: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode({"command": "ack", "args": {"of": text}}))


class LetterCodec:
    """Decodes `<letter> <device> [argument]`.

    r report, b report of 1000 points, p part, e event, g register, a authenticate, h heartbeat, y reply, x trap,
    k stop at this frame (deadline), c checksum error, n nothing.
    """

    plugin_id = "letters"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.aux: list[int] = []
        self.down = False
        self.encodes = 0
        self.parties: set[int | None] = set()
        self.clock: FakeClock | None = None
        self.takes_s = 0.0
        self.encode_s = 0.0
        self.killed: set[bytes] = set()

    def decode_batch(self, frames: Sequence[bytes], aux: Sequence[int] | None = None) -> list[DecodeResult]:
        if self.down:
            raise NotReady("the plugin does not start")
        self.batches.append(len(frames))
        self.aux += aux or []
        if self.clock is not None:
            self.clock.advance(self.takes_s * len(frames))
        results: list[DecodeResult] = []
        for frame in frames:
            if frame[:1] == b"k" and frame not in self.killed:
                self.killed.add(frame)
                results.append(TRAPPED)
                return results
            results.append(self._one(frame))
        return results

    def _one(self, frame: bytes) -> DecodeResult:
        letter, device, *rest = frame.decode().split(" ", 2)
        argument = rest[0] if rest else ""
        codes: dict[str, int | None] = {"x": TRAPPED, "c": 3, "n": None, "k": TRAPPED}
        if letter in codes:
            return codes[letter]
        name = None if device == "-" else device
        ack = ack_of(argument)
        kinds: dict[str, dict[str, Any]] = {
            "g": {"kind": "register"},
            "a": {"kind": "authenticate", "credential": argument},
            "e": {"kind": "event", "event": Notice(argument)},
            "h": {"kind": "heartbeat"},
            "b": {"kind": "report", "points": [Point(None, {"v": float(number)}) for number in range(1000)]},
        }
        if letter == "y":
            value = msgspec.Raw(msgspec.msgpack.encode({"echo": argument}))
            return Decoded("reply", name, reply_to=int(argument), value=value)
        if letter == "p":
            return Decoded("report", name)
        if letter == "r":
            return Decoded("report", name, [Point(None, {"v": float(argument or 0)})], ack=ack)
        return Decoded(device=name, ack=ack, **kinds[letter])

    def encode(self, request: bytes, aux: int = 0, *, party: int | None = None) -> bytes:
        self.encodes += 1
        self.parties.add(party)
        if self.clock is not None:
            self.clock.advance(self.encode_s)
        asked: dict[str, Any] = msgspec.msgpack.decode(request)
        if asked["args"].get("of") == "trap":
            raise PluginTrapped(TRAPPED, "deadline")
        if asked["command"] == "bad":
            raise CodecError(7, "bad config")
        told = "".join(f" {key}={asked[key]}" for key in ("accepted", "credential") if key in asked)
        return f"{asked['command']} {asked['args'].get('of', asked.get('serial', ''))}{told};".encode()


class HeldJournal:
    """Keeps commits until `commit_all` or `fail_all`, like a disk that takes its time."""

    def __init__(self) -> None:
        self.pending: list[tuple[Commit, Done]] = []
        self.stored: list[Commit] = []
        self.full = False
        self.seq = 0

    @property
    def waiting(self) -> int:
        return sum(len(commit.messages) for commit, _ in self.pending)

    def submit(self, commit: Commit, done: Done) -> None:
        if self.full:
            raise NotReady("full")
        self.pending.append((commit, done))

    def commit_all(self) -> None:
        pending, self.pending = self.pending, []
        for commit, done in pending:
            for message in commit.messages:
                self.seq += 1
                message.seq = self.seq
            self.stored.append(commit)
            done(None)

    def fail_all(self) -> None:
        pending, self.pending = self.pending, []
        for _, done in pending:
            done(StorageFailed("disk full"))


class PlainNormaliser:
    def normalise(self, values: dict[str, Any]) -> tuple[dict[str, Any], None, int]:
        return values, None, 0


class FakeDirectory:
    """Products and devices in memory, with the catalog's traffic side."""

    def __init__(self, *products: Product) -> None:
        self.products = {(product.tenant_id, product.id): product for product in products}
        self.devices: dict[tuple[str, str], Device] = {}
        self.forgotten: list[str] = []
        self.confirmed: list[str] = []

    def add(self, device_id: str, product_id: str = "p", *, enabled: bool = True) -> Device:
        device = Device(key=len(self.devices) + 1, tenant_id="default", id=device_id, product_id=product_id)
        device.enabled = enabled
        self.devices["default", device_id] = device
        return device

    def product_by_id(self, tenant_id: str, product_id: str) -> Product | None:
        return self.products.get((tenant_id, product_id))

    def device_by_id(self, tenant_id: str, device_id: str) -> Device | None:
        return self.devices.get((tenant_id, device_id))

    def normaliser(self, tenant_id: str, product_id: str) -> PlainNormaliser:
        return PlainNormaliser()

    def allocate(self, tenant_id: str, product_id: str, device_id: str, at_ms: int) -> Device:
        if len(device_id) > 8:
            raise Rejected("a device id has at most 8 characters")
        return self.add(device_id, product_id)

    def confirm(self, device: Device) -> None:
        self.confirmed.append(device.id)

    def forget(self, device: Device) -> None:
        self.forgotten.append(device.id)
        del self.devices[device.tenant_id, device.id]


class FakeCredentials:
    """Issues `code-<device>`; a digest is the text with `#` before it."""

    def on_register(self, device: Device) -> tuple[bool, str | None]:
        if device.credential_source == "operator":
            return False, None
        return True, f"code-{device.id}"

    def on_authenticate(self, product: Product, device: Device, presented: str) -> bool:
        if device.credential_digest is None:
            return product.registration == "auto"
        return device.credential_digest == self.digest(presented)

    def digest(self, credential: str) -> str:
        return f"#{credential}"
