# ruff: noqa: INP001 - a script of a plugin's folder, in no package
"""Prints gb18030.h: what GB 18030-2005 says of two- and four-byte characters.

`[build] generated` runs it. The table is that of Python's own codec, which knows the edition of 2000, with what the
edition of 2005 changed; a digest of the whole holds it to that, whatever a later Python's codec knows.
Source of the layout: GB 18030-2005, clauses 6 and 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

LEADS = range(0x81, 0xFF)
TRAILS = (*range(0x40, 0x7F), *range(0x80, 0xFF))
FOUR_BYTES_BMP = 39_420
"""Four-byte characters of the Basic Multilingual Plane, counted from 81 30 81 30; the others are computed."""
SUPPLEMENTARY = 189_000
"""Count of 90 30 81 30, which is U+10000."""
CHANGED = {bytes.fromhex("a8bc"): 0x1E3F, bytes.fromhex("8135f437"): 0xE7C7}
"""All that the edition of 2005 maps otherwise than that of 2000: LATIN SMALL LETTER M WITH ACUTE left the private use
area, and the code of four bytes that it had stands for that place now."""
TABLE_SHA256 = "507577e078891ab6d190441a96a63c57523289240ee0370eaadd4929ec5a914c"
"""Of the lines of the table: the module must be the same whichever Python builds it."""


def code_point(data: bytes) -> int:
    """The character of some bytes; 0 where they are none."""
    if data in CHANGED:
        return CHANGED[data]
    try:
        return ord(data.decode("gb18030"))
    except UnicodeDecodeError:
        return 0


def four_bytes(count: int) -> bytes:
    """The bytes of the four-byte character with a number."""
    count, fourth = divmod(count, 10)
    count, third = divmod(count, 126)
    first, second = divmod(count, 10)
    return bytes((0x81 + first, 0x30 + second, 0x81 + third, 0x30 + fourth))


def four_byte_runs() -> Iterator[tuple[int, int]]:
    """Where a run of characters one after another begins, and its first character; 0 begins a gap."""
    expected = -1
    for count in range(FOUR_BYTES_BMP):
        code = code_point(four_bytes(count))
        if code != expected:
            yield count, code
        expected = code + 1 if code else 0


def header() -> Iterator[str]:
    """The lines of the header."""
    assert code_point(four_bytes(SUPPLEMENTARY)) == 0x10000  # noqa: S101 - no table is better than a wrong one
    assert code_point(four_bytes(SUPPLEMENTARY + 0xFFFFF)) == 0x10FFFF  # noqa: S101 - as above
    yield "/* Printed by gb18030.py. Two bytes: 126 leads by 190 trails; 0 where there is no character. */"
    yield f"enum {{ GB_BMP = {FOUR_BYTES_BMP}, GB_SUPPLEMENTARY = {SUPPLEMENTARY} }};"
    yield "static const uint16_t gb_two_bytes[126 * 190] = {"
    for lead in LEADS:
        yield ",".join(str(code_point(bytes((lead, trail)))) for trail in TRAILS) + ","
    yield "};"
    yield "/* Runs of four-byte characters: the first one's count, and its code point; 0 for a gap. */"
    yield "static const struct { uint16_t count, code; } gb_runs[] = {"
    yield ",".join(f"{{{count},{code}}}" for count, code in four_byte_runs())
    yield "};"


def checked(text: str) -> str:
    """The header, which must be the one that was compared with the standard."""
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != TABLE_SHA256:
        raise SystemExit(
            f"the codec gb18030 of this Python knows another edition than those of 2000 and 2005 (table {found}); "
            "build with another Python, or say in CHANGED what differs"
        )
    return text


if __name__ == "__main__":
    print(checked("\n".join(header())))  # noqa: T201 - printing is its job
