from typing import Any

import pytest

from gateway.core.errors import ConfigError
from gateway.framing.spec import (
    DelimiterSpec,
    FixedSpec,
    FlagEscapeSpec,
    GapSpec,
    LengthFieldSpec,
    NoneSpec,
    framer_for,
    framing_spec,
)


@pytest.mark.parametrize(
    ("table", "spec"),
    [
        ({"type": "fixed", "frame_bytes": 64}, FixedSpec(frame_bytes=64)),
        ({"type": "delimiter", "delimiter": "\r\n"}, DelimiterSpec(delimiter="\r\n")),
        ({"type": "length_field", "width": 4, "strip": 4}, LengthFieldSpec(width=4, strip=4)),
        ({"type": "flag_escape"}, FlagEscapeSpec()),
        (
            {"type": "flag_escape", "flag": 0xC0, "escape": 0xDB, "escapes": [[0xDC, 0xC0], [0xDD, 0xDB]]},
            FlagEscapeSpec(flag=0xC0, escape=0xDB, escapes=((0xDC, 0xC0), (0xDD, 0xDB))),
        ),
        ({"type": "gap", "gap_ms": 4}, GapSpec(gap_ms=4.0)),
        ({"type": "none"}, NoneSpec()),
    ],
)
def test_a_table_as_in_toml_gives_the_framing_it_names(table: dict[str, Any], spec: object) -> None:
    assert framing_spec(table, "[framing]") == spec
    assert framer_for(framing_spec(table, "[framing]")).pending == 0


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "`type` is missing; known are: fixed, delimiter"),
        ({"type": "lenght_field"}, "did you mean `length_field`"),
        ({"type": 7}, "`type` 7 is no framing"),
        ({"type": "fixed"}, "missing required field `frame_bytes`"),
        ({"type": "fixed", "frame_bytes": 0}, "`frame_bytes`"),
        ({"type": "fixed", "frame_bytes": 70000}, "over max_frame_bytes 65536"),
        ({"type": "length_field", "widht": 2}, "unknown key `widht`; did you mean `width`"),
        ({"type": "length_field", "width": 5}, "`width`"),
        ({"type": "length_field", "offset": 60000, "max_frame_bytes": 100}, "offset [+] width"),
        ({"type": "length_field", "strip": 60000, "max_frame_bytes": 100}, "strip"),
        ({"type": "length_field", "start": "68", "end": "1616", "max_frame_bytes": 3}, "header and end"),
        ({"type": "length_field", "start": "..68"}, "`start`"),
        ({"type": "length_field", "start": "68\n"}, "`start`"),
        ({"type": "length_field", "start": "68", "end": "16\n"}, "`end`"),
        ({"type": "length_field", "end": "16"}, "need a start"),
        ({"type": "length_field", "preamble": 0xFE}, "need a start"),
        ({"type": "delimiter", "delimiter": ""}, "`delimiter`"),
        ({"type": "delimiter", "delimiter_hex": "0g"}, "`delimiter_hex`"),
        ({"type": "delimiter", "delimiter_hex": "0a\n"}, "`delimiter_hex`"),
        ({"type": "delimiter", "delimiter": "\r\n", "max_frame_bytes": 2}, "max_frame_bytes"),
        ({"type": "flag_escape", "flag": 256}, "`flag`"),
        ({"type": "flag_escape", "escape": 0x7E}, "different bytes"),
        ({"type": "flag_escape", "escapes": [[1, 2], [1, 3]]}, "twice"),
        ({"type": "flag_escape", "escapes": [[1, 3], [2, 3]]}, "twice"),
        ({"type": "flag_escape", "escapes": [[0x7E, 1]]}, "may not be followed"),
        ({"type": "flag_escape", "escapes": [[1, 2], [2, 3]]}, "may not stand for"),
        ({"type": "gap", "gap_ms": 0}, "`gap_ms`"),
        ({"type": "none", "max_frame_bytes": 1 << 30}, "`max_frame_bytes`"),
    ],
)
def test_a_wrong_table_is_refused_with_the_key_and_the_place(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=rf"^plugin jt808: \[framing\]: .*{says}"):
        framing_spec(table, "plugin jt808: [framing]")


def test_the_default_flag_framing_holds_the_longest_jt808_frame_with_every_byte_escaped() -> None:
    longest = bytes((0x7E,)) * (12 + 4 + 4 + 1 + 1023 + 1)
    wire = b"\x7e" + longest.replace(b"\x7e", b"\x7d\x02") + b"\x7e"
    assert framer_for(FlagEscapeSpec()).feed(wire) == [longest]
