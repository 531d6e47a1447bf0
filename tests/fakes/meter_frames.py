"""Frames of meters, built from the standards for tests: DL/T 645-2007 and CJ/T 188-2004."""

from __future__ import annotations


def dlt645(control: int, data: bytes = b"", address: str = "000000000161") -> bytes:
    """A frame without preamble. `address` has 12 hex digits as people write them; `data` is without its offset."""
    shifted = bytes((byte + 0x33) & 0xFF for byte in data)
    body = b"\x68" + bytes.fromhex(address)[::-1] + b"\x68" + bytes((control, len(data))) + shifted
    return body + bytes((sum(body) & 0xFF, 0x16))


def identifier(di: str) -> bytes:
    """A data identifier as it travels: eight hex digits, the last byte first."""
    return bytes.fromhex(di)[::-1]


def cjt188(control: int, data: bytes = b"", address: str = "78330011223344", kind: int = 0x10) -> bytes:
    """A frame without preamble. `address` has 14 hex digits, the maker's four first; `kind` is the meter type."""
    body = b"\x68" + bytes((kind,)) + bytes.fromhex(address)[::-1] + bytes((control, len(data))) + data
    return body + bytes((sum(body) & 0xFF, 0x16))


def modbus_rtu(unit_id: int, function: int, data: bytes = b"") -> bytes:
    """A frame with its CRC: polynomial A001H, low byte first (Modbus over Serial Line V1.02, 6.2.2)."""
    body = bytes((unit_id, function)) + data
    crc = 0xFFFF
    for byte in body:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return body + crc.to_bytes(2, "little")
