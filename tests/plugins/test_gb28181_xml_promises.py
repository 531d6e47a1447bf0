"""Plugin gb28181-xml: against another XML parser and another decoder, its bounds, and bodies of any kind."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes.callable_plugins import CallablePlugin, any_value, callable_plugin
from fakes.plugin_codecs import PLUGINS
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

hostile = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])

TRUNCATED, UNKNOWN, UNSUPPORTED, TOO_LARGE, BAD = 1, 2, 5, 4, 7
SPECIAL = {ord(sign) for sign in "<>&\r"}
CHANGED_2005 = {b"\xa8\xbc": "\u1e3f", b"\x81\x35\xf4\x37": "\ue7c7"}
"""What Python's codec, which knows the edition of 2000, has the other way round."""


@pytest.fixture(scope="module")
def parser() -> Iterator[CallablePlugin]:
    with callable_plugin("gb28181-xml") as plugin:
        yield plugin


def notify(inner: str, declaration: str = "") -> str:
    return f"{declaration}<Notify><CmdType>Alarm</CmdType>{inner}</Notify>"


def test_bodies_of_real_devices_and_of_the_standard_come_out(parser: CallablePlugin) -> None:
    assert parser.broken_promises() == []


# Character sets.


def test_every_character_of_gb18030_is_what_another_decoder_makes_of_it(parser: CallablePlugin) -> None:
    changed = set(map(ord, CHANGED_2005.values()))
    codes = [code for code in chain(range(0x20, 0xD800), range(0xE000, 0x110000)) if code not in SPECIAL | changed]
    for begin, end in pairwise([*range(0, len(codes), 150_000), len(codes)]):
        text = "".join(map(chr, codes[begin:end]))
        body = notify(f"<Name>.{text}.</Name>").encode("gb18030")
        answer = parser.call(body=body, charset="gb18030")
        assert answer["name"] == f".{text}."
        assert answer["replaced"] == 0


@pytest.mark.parametrize(("sent", "read"), CHANGED_2005.items())
def test_characters_that_the_edition_of_2005_moved_are_where_it_has_them(
    parser: CallablePlugin, sent: bytes, read: str
) -> None:
    body = notify("<Name>").encode() + sent + b"</Name></Notify>"
    answer = parser.call(body=body.replace(b"</Notify>", b"", 1), charset="gb18030")
    assert (answer["name"], answer["replaced"]) == (read, 0)


def test_the_table_is_built_alike_by_any_python_or_not_at_all(tmp_path: Path) -> None:
    script = (PLUGINS / "gb28181-xml" / "gb18030.py").read_text()
    newer = tmp_path / "gb18030.py"
    newer.write_text(script.replace('data.decode("gb18030")', 'data.decode("gb18030").replace("\\ue78d", "\\ufe10")'))
    assert newer.read_text() != script
    done = subprocess.run([sys.executable, "-I", newer], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "knows another edition" in done.stderr
    assert done.stdout == ""


def decoded_piecewise(data: bytes, codec: str) -> str:
    """What a decoder makes of bytes when each byte that begins no character is replaced alone."""
    text = ""
    while data:
        for length in range(1, 5):
            try:
                read = data[:length].decode(codec)
            except UnicodeDecodeError:
                continue
            text += CHANGED_2005.get(data[:length], read) if codec == "gb18030" else read
            data = data[length:]
            break
        else:
            text += "\ufffd"
            data = data[1:]
    return text


gb_like = st.lists(
    st.binary(min_size=1, max_size=2)
    | st.tuples(st.integers(0x81, 0xFE), st.integers(0x30, 0xFE)).map(bytes)
    | st.tuples(st.integers(0x81, 0xFE), st.integers(0x30, 0x39), st.integers(0x81, 0xFE), st.integers(0x30, 0x39)).map(
        bytes
    )
).map(b"".join)


@hostile
@given(data=gb_like, charset=st.sampled_from(["gb18030", "utf-8"]))
@example(data=b"\xcd", charset="gb18030")
@example(data=b"\xa8\xbc\x81\x35\xf4\x37", charset="gb18030")
@example(data=b"\xff\x80\xfe\xff", charset="gb18030")
@example(data=b"\x84\x31\xa4\x39\x84\x31\xa5\x30\x90\x30\x81\x30\xe3\x32\x9a\x35\xe3\x32\x9a\x36", charset="gb18030")
@example(data=b"\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80\xe0\x80\x80\xf0\x80\x80\x80", charset="utf-8")
def test_bytes_that_are_no_character_are_replaced_and_counted(
    parser: CallablePlugin, data: bytes, charset: str
) -> None:
    data = bytes(byte for byte in data if byte >= 0x20 and byte not in SPECIAL)
    expected = decoded_piecewise(b"." + data + b".", charset)
    body = notify("<Name>.").encode() + data + b".</Name></Notify>"
    body = body.replace(b"</Notify>", b"", 1)

    answer = parser.call(body=body, charset=charset)

    assert answer["name"] == expected
    assert answer["replaced"] == expected.count("\ufffd") - data.decode(charset, "ignore").count("\ufffd")


@pytest.mark.parametrize("declared", ["", '<?xml version="1.0"?>', "<?xml version='1.0' encoding='utf-8'?>"])
@pytest.mark.parametrize("sent", ["utf-8", "gb18030"])
def test_a_body_without_a_true_declaration_is_read_all_the_same(
    parser: CallablePlugin, declared: str, sent: str
) -> None:
    answer = parser.call(body=notify("<Name>北门停车场一号摄像机</Name>", declared).encode(sent))
    assert (answer["name"], answer["charset"]) == ("北门停车场一号摄像机", sent)


@pytest.mark.parametrize("name", ["GB2312", "gbk", "GB18030", "gb_2312-80"])
def test_a_declaration_of_a_chinese_set_decides(parser: CallablePlugin, name: str) -> None:
    # U+6A21 in GBK is c4 a3, which is also a letter in UTF-8.
    body = notify("<Name>模</Name>", f'<?xml version="1.0" encoding="{name}"?>').encode("gbk")
    assert parser.call(body=body)["name"] == "模"


def test_a_utf8_name_cut_in_the_middle_of_a_character_stays_utf8(parser: CallablePlugin) -> None:
    cut = "北门停车场".encode()[:-1]
    answer = parser.call(body=notify("<Name>%</Name>").encode().replace(b"%", cut))
    assert answer["charset"] == "utf-8"
    assert answer["name"].startswith("北门停车\ufffd")


# XML.

names = st.sampled_from(
    ["Name", "SN", "Longitude", "AlarmTime", "Info", "Vendor", "a", "x-y", "DeviceID", "Item", "i:j"]
)
plain_texts = st.text(
    st.sampled_from("ab 中<&>'\"]\n1.-") | st.characters(codec="utf-8", min_codepoint=0x20), max_size=8
)


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("]]>", "]]&gt;")


pieces = (
    plain_texts.map(escaped)
    | plain_texts.map(lambda text: f"<![CDATA[{text.replace(']]>', '')}]]>")
    | st.integers(0x20, 0xD7FF).map(lambda code: f"&#x{code:x};")
    | st.just("<!-- aside -->")
    | st.just("<?target data?>")
    | st.just("&amp;&lt;&gt;&apos;&quot;")
)
leaves = st.tuples(names, st.lists(pieces, max_size=3).map("".join)).map(
    lambda leaf: f"<{leaf[0]}>{leaf[1]}</{leaf[0]}>"
)
elements = st.recursive(
    leaves | names.map(lambda name: f"<{name}/>"),
    lambda inner: st.tuples(names, st.lists(inner, max_size=4), st.sampled_from(["", ' a="1"', " Num='2'"])).map(
        lambda parts: f"<{parts[0]}{parts[2]}>{''.join(parts[1])}</{parts[0]}>"
    ),
    max_leaves=10,
)


def known_to_plugin(element: ET.Element, answer: Any) -> None:
    """Check an answer against a tree that another parser made."""
    children = list(element)
    listed = [child for child in children if child.tag != "Item"]
    if is_list(element):
        assert len(answer) == len(children)
        for child, item in zip(children, answer, strict=True):
            known_to_plugin(child, item)
        return
    if not children:
        text = (element.text or "").strip(" \t\r\n")
        assert answer == ({} if element.tag == "Info" and not text else answer)
        if isinstance(answer, str) and element.tag != "AlarmTime":
            assert answer == text
        return
    assert listed
    told = {
        **{key: value for key, value in answer.items() if key not in {"other", "invalid"}},
        **answer.get("other", {}),
    }
    assert len(told) == len({key_of(child, element) for child in children})
    for tag in {child.tag for child in children}:
        same = [child for child in children if child.tag == tag]
        value = told[key_of(same[0], element)]
        if len(same) == 1 and key_of(same[0], element) != "device_ids":
            known_to_plugin(same[0], value)
        else:
            for child, one in zip(same, value, strict=True):
                known_to_plugin(child, one)


def is_list(element: ET.Element) -> bool:
    children = list(element)
    if not children:
        return "Num" in element.attrib and not (element.text or "").strip(" \t\r\n")
    return "Num" in element.attrib or all(child.tag == "Item" for child in children)


def key_of(child: ET.Element, parent: ET.Element) -> str:
    if child.tag == "DeviceID":
        return "device_ids" if parent.tag == "Info" else "device_id"
    keys = {"Name": "name", "SN": "sn", "Longitude": "longitude", "AlarmTime": "alarm_time", "Info": "info"}
    return keys.get(child.tag, child.tag)


@hostile
@given(inner=st.lists(elements, max_size=4).map("".join))
def test_a_body_is_what_another_parser_makes_of_it(parser: CallablePlugin, inner: str) -> None:
    inner = inner.replace("i:j", "i.j")
    tree = ET.fromstring(f"<Info><Name/>{inner}</Info>")  # noqa: S314 - made above, without a document type

    answer = parser.call(body=notify(f"<ExtraInfo><Info><Name/>{inner}</Info><Model/></ExtraInfo>"))

    known_to_plugin(tree, answer["extra_info"]["info"])


def expat_takes(body: bytes) -> bool:
    try:
        ET.fromstring(body)  # noqa: S314 - without a document type
    except (ET.ParseError, ValueError, LookupError):
        return False
    return True


SOUND = notify(
    '<Name a="1" b=\'2\'>x&amp;&#65;<![CDATA[y]]></Name><!-- c --><?p q?><DeviceList Num="1"><Item/></DeviceList>'
)
edits = st.lists(
    st.tuples(
        st.integers(0, len(SOUND)),
        st.integers(0, 3),
        st.text(st.sampled_from("<>&;/!?-[]'\"= aN\r\n\t#x\x01"), max_size=3),
    ),
    min_size=1,
    max_size=3,
)


@hostile
@given(changes=edits)
def test_what_is_not_well_formed_is_refused_exactly_where_another_parser_refuses_it(
    parser: CallablePlugin, changes: list[tuple[int, int, str]]
) -> None:
    body = SOUND
    for at, removed, added in changes:
        body = body[:at] + added + body[at + removed :]
    assume("<!D" not in body)
    assume(":" not in body)
    data = body.encode()

    outcome = parser.outcome({"body": data, "charset": "utf-8"})

    if expat_takes(data.strip(b" \t\r\n")):
        assert not isinstance(outcome, int) or outcome == UNKNOWN
    else:
        assert outcome in {TRUNCATED, BAD}


@pytest.mark.parametrize(
    ("body", "number", "says"),
    [
        (notify("<Name>A&B</Name>"), BAD, "byte 39: an & must be written &amp;"),
        ("<!DOCTYPE a []>" + notify(""), BAD, "byte 0: a document type is refused: leave out <!DOCTYPE"),
        (notify("<Name></Nane>"), BAD, "byte 38: an end tag names another element than the one that is open"),
        (notify("<Name>")[:-9], TRUNCATED, "byte 38: ends before the root element is closed"),
        (notify("<a " + " ".join(f'b{n}="1"' for n in range(33)) + "/>"), BAD, "more than 32 attributes"),
        (notify('<a b="1" b="2"/>'), BAD, "an attribute comes twice"),
        (notify("<a>&#0;</a>"), BAD, "names a character that XML has not"),
        (notify("<a>&#x110000;</a>"), BAD, "past U+10FFFF"),
        (notify("<a>\0</a>"), BAD, "a control character"),
        (notify("") + "<b/>", BAD, "a second element beside the root"),
        (notify(f"<{'n' * 129}/>"), BAD, "a name is longer than 128 bytes"),
        (notify("".join(f"<f{n}/>" for n in range(65))), BAD, "body: an element has more than 64 different children"),
        ("<Reply/>", UNKNOWN, "body: the root must be Notify, Response, Query or Control"),
        ("<Notify/>", UNKNOWN, "body: has no CmdType"),
        (notify("", '<?xml version="1.0" encoding="Shift_JIS"?>'), UNSUPPORTED, "say what it is in `charset`"),
        ("\ufeff".encode("utf-16"), UNSUPPORTED, "UTF-16 is not read"),
        (7, BAD, "body: must be bytes"),
        (None, BAD, "body: is missing: give bytes"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(parser: CallablePlugin, body: Any, number: int, says: str) -> None:
    refused = parser.refusal(body=body)
    assert refused[0] == number
    assert says in refused[1]


def test_the_byte_of_a_refusal_is_that_of_the_body_as_it_was_sent(parser: CallablePlugin) -> None:
    body = b"\r\n" + notify("<Name>北门停车场</Name><Nam", '<?xml version="1.0" encoding="GB2312"?>').encode("gb2312")
    _, text = parser.refusal(body=body)
    found = re.search(r"byte (\d+):", text)
    assert found is not None
    assert body[int(found[1]) :] == b"</Notify>"


# Bounds.


def nested(depth: int) -> str:
    return notify("<a>" * (depth - 1) + "</a>" * (depth - 1))


def test_sixteen_levels_are_read_and_seventeen_are_not(parser: CallablePlugin) -> None:
    assert "other" in parser.call(body=nested(16))
    number, text = parser.refusal(body=nested(17))
    assert (number, "deeper than 16 levels" in text) == (BAD, True)
    assert parser.refusal(body="<a>" * 500_000)[0] == BAD


def catalog(count: int) -> str:
    item = "<Item><DeviceID>34020000001320000001</DeviceID><Name>门</Name><Status>ON</Status></Item>"
    return f'<Response><CmdType>Catalog</CmdType><DeviceList Num="{count}">{item * count}</DeviceList></Response>'


def test_ten_thousand_items_are_read_and_one_more_is_not(parser: CallablePlugin) -> None:
    answer = parser.call(body=catalog(10_000))
    assert len(answer["items"]) == answer["num"] == 10_000
    assert answer["items"][-1] == {"device_id": "34020000001320000001", "name": "门", "status": "ON"}
    number, text = parser.refusal(body=catalog(10_001))
    assert (number, "more than 10000 items" in text) == (BAD, True)


MEGABYTES = 4_000_000


@pytest.mark.parametrize(
    "body",
    [
        notify("<SN>x</SN>" * (MEGABYTES // 10)),
        notify("".join(f"<{letter * 120}/>" for letter in "abcdefghij") * (MEGABYTES // 1230)),
        notify("<a>" + "&#1114111;" * (MEGABYTES // 10) + "</a>"),
        notify(("<Info>" + "".join(f"<f{n}/>" for n in range(60)) + "</Info>") * (MEGABYTES // 330)),
        notify("<!--" + "-x" * (MEGABYTES // 2) + "-->"),
        notify("<a>" + "]]" * (MEGABYTES // 2) + "</a>"),
    ],
    ids=["same names", "long names", "references", "many maps", "comment", "brackets"],
)
def test_the_largest_bodies_are_answered(parser: CallablePlugin, body: str) -> None:
    parser.outcome({"body": body})


def test_a_body_that_grows_past_its_room_is_refused(parser: CallablePlugin) -> None:
    assert parser.outcome({"body": b"\xff" * MEGABYTES, "charset": "gb18030"}) == TOO_LARGE


# Values.


@hostile
@given(number=st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-1000, 1000, places=8).map(float))
def test_a_number_is_read_to_its_last_digits(parser: CallablePlugin, number: float) -> None:
    read = parser.call(body=notify(f"<Longitude>{number!r}</Longitude>"))["longitude"]
    assert read == pytest.approx(number, rel=1e-14, abs=1e-300)


@hostile
@given(degrees=st.integers(-(10**15) + 1, 10**15 - 1), places=st.integers(0, 12))
def test_a_number_of_up_to_15_digits_is_read_exactly(parser: CallablePlugin, degrees: int, places: int) -> None:
    digits = f"{abs(degrees):0{places + 1}d}"
    text = f"{'-' if degrees < 0 else ''}{digits[: len(digits) - places]}.{digits[len(digits) - places :]}"
    assert parser.call(body=notify(f"<Latitude>{text}</Latitude>"))["latitude"] == float(text)


@pytest.mark.parametrize("text", ["abc", "1e", "1.2.3", "--1", "1 2", "0x10", "nan", "inf", "1e999", "."])
def test_a_text_that_is_no_number_is_told_as_it_is(parser: CallablePlugin, text: str) -> None:
    answer = parser.call(body=notify(f"<Longitude>{text}</Longitude>"))
    assert answer["longitude"] is None
    assert answer["invalid"] == {"longitude": text}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2024-02-29T23:59:59", "2024-02-29T23:59:59"),
        ("2024-2-9 3:04:05", "2024-02-09T03:04:05"),
        ("2024/02/09 03:04:05.125", "2024-02-09T03:04:05.125"),
        ("2024-02-09T03:04:05z", "2024-02-09T03:04:05Z"),
        ("2024-02-09T03:04:05+8:00", "2024-02-09T03:04:05+08:00"),
        ("2023-02-29T00:00:00", None),
        ("2024-13-01T00:00:00", None),
        ("2024-04-31T00:00:00", None),
        ("2024-01-01T24:00:00", None),
        ("24-01-01T00:00:00", None),
        ("2024-01-01T00:00", None),
        ("2024-01-01T00:00:00.", None),
        ("2024-01-01T00:00:00 now", None),
    ],
)
def test_a_time_is_put_right_or_told_as_it_is(parser: CallablePlugin, text: str, told: str | None) -> None:
    answer = parser.call(body=notify(f"<AlarmTime>{text}</AlarmTime>"))
    assert answer["alarm_time"] == told
    assert answer.get("invalid") == (None if told else {"alarm_time": text})


@pytest.mark.parametrize(("text", "told"), [("7", 7), ("-0012", -12), ("999999999999999999", 10**18 - 1), ("", None)])
def test_a_whole_number_is_read(parser: CallablePlugin, text: str, told: int | None) -> None:
    answer = parser.call(body=notify(f"<SN> {text}\n</SN>"))
    assert (answer["sn"], "invalid" in answer) == (told, False)


def test_what_a_vendor_adds_cannot_pose_as_what_the_parser_says(parser: CallablePlugin) -> None:
    answer = parser.call(body=notify("<root>Query</root><charset>x</charset><items>y</items><other><Z/></other>"))
    assert (answer["root"], answer["charset"]) == ("Notify", "utf-8")
    assert answer["other"] == {"root": "Query", "charset": "x", "items": "y", "other": {"other": {"Z": ""}}}


# Bodies of any kind.


@hostile
@given(args=st.fixed_dictionaries({}, optional={"body": any_value, "charset": any_value | st.just("gbk")}))
def test_any_arguments_give_an_answer_or_a_code(parser: CallablePlugin, args: Any) -> None:
    assert parser.outcome(args) in {TRUNCATED, UNKNOWN, UNSUPPORTED, BAD}


@hostile
@given(packed=st.binary(max_size=200))
def test_any_bytes_for_arguments_give_an_answer_or_a_code(parser: CallablePlugin, packed: bytes) -> None:
    parser.outcome_of_bytes(packed)


@hostile
@given(
    start=st.sampled_from([SOUND, catalog(2)]).map(str.encode),
    changes=st.lists(st.tuples(st.integers(0, 250), st.binary(max_size=4)), max_size=6),
    charset=st.sampled_from([None, "utf-8", "gb18030"]),
)
def test_damaged_bodies_give_an_answer_or_a_code(
    parser: CallablePlugin, start: bytes, changes: list[tuple[int, bytes]], charset: str | None
) -> None:
    body = bytearray(start)
    for at, bytes_there in changes:
        body[at : at + len(bytes_there)] = bytes_there
    parser.outcome({"body": bytes(body), "charset": charset})
