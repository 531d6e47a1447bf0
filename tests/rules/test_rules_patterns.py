"""The guarded string and table libraries do what Lua's own do, as long as it costs little."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lupa import lua54

from gateway.rules.config import SandboxLimits
from gateway.rules.sandbox import _Runtime

PLAIN = lua54.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
GUARDED = _Runtime(SandboxLimits())
CALL = b"""return function(name, ...)
  local library, call = name:match("(%w+)%.(%w+)")
  return pcall(_ENV[library][call], ...)
end"""
GUARDED_CALL = GUARDED.lua.execute(b"local _ENV = ... " + CALL, GUARDED.env)


def plain(name: str, *given: Any) -> tuple[Any, ...]:
    return _tuple(PLAIN.execute(CALL)(name.encode(), *given))


def guarded(name: str, *given: Any) -> tuple[Any, ...]:
    found: tuple[Any, ...] = GUARDED.bounded(GUARDED_CALL, name.encode(), *given)
    assert found[0] is True, found
    return found[1:]


def _tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def too_dear(found: tuple[Any, ...]) -> bool:
    return found[0] is False and b"costs too much" in found[1]


PIECES = st.sampled_from(
    ["a", "b", "%d", "%a", ".", "[ab]", "[^a]", "[%d_]", "-", "%-", "%.", "%s", "(a)", "(.)", "()", "$", "^", "%w", "x"]
)
PATTERNS = st.lists(st.tuples(PIECES, st.sampled_from(["", "", "*", "+", "-", "?"])), max_size=6).map(
    lambda parts: "".join(piece + mark for piece, mark in parts)
)
SUBJECTS = st.text(st.sampled_from("aab1-_. x"), max_size=12)


@given(SUBJECTS, PATTERNS, st.sampled_from(["find", "match"]), st.integers(-3, 8))
@settings(max_examples=400, deadline=None)
def test_a_cheap_pattern_matches_as_in_plain_lua(subject: str, pattern: str, call: str, init: int) -> None:
    given_ = subject.encode(), pattern.encode(), init
    expected, found = plain(f"string.{call}", *given_), guarded(f"string.{call}", *given_)
    assume(not too_dear(found))
    assert found[0] == expected[0], (expected, found)
    if expected[0]:
        assert found == expected


@given(SUBJECTS, PATTERNS)
@settings(max_examples=200, deadline=None)
def test_a_cheap_substitution_is_that_of_plain_lua(subject: str, pattern: str) -> None:
    expected = plain("string.gsub", subject.encode(), pattern.encode(), b"<%0>")
    found = guarded("string.gsub", subject.encode(), pattern.encode(), b"<%0>")
    assume(not too_dear(found))
    assert found[0] == expected[0], (expected, found)
    if expected[0]:
        assert found == expected


WORDS = b"""return function(s, pattern)
  local t = {}
  for word in s:gmatch(pattern) do t[#t + 1] = word end
  return #t, table.unpack(t)
end"""
PLAIN_WORDS = PLAIN.execute(WORDS)
GUARDED_WORDS = GUARDED.lua.execute(b"local _ENV = ... " + WORDS, GUARDED.env)


@pytest.mark.parametrize(
    ("subject", "pattern"),
    [(b"^a ^b c", b"^%w"), (b"a,b,c", b"[^,]+"), (b"^", b"^"), (b"aa", b"^a"), (b"ab" * 700, b"a+b")],
)
def test_gmatch_finds_what_plain_lua_finds(subject: bytes, pattern: bytes) -> None:
    expected = _tuple(PLAIN_WORDS(subject, pattern))
    assert GUARDED.bounded(GUARDED_WORDS, subject, pattern) == (True, *expected)


EVERYDAY = {
    "a date": ("2026-11-21T08:00:00.123Z", r"^(%d+)-(%d+)-(%d+)T(%d+):(%d+):([%d.]+)Z$"),
    "key and value": ("speed = 80.5 km/h", r"(%w+)%s*=%s*([%d.]+)"),
    "trim": ("   " + "x" * 500 + "   ", r"^%s*(.-)%s*$"),
    "an NMEA sentence": (
        "$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A",
        r"^%$(%w+),(%d+),(%a)",
    ),
    "hex": ("7e 01 02 ff 7e", r"%x%x"),
    "a word in a long text": ("y" * 10_000 + "needle", "needle"),
    "brackets": ("f(a(b)c)d", r"%b()"),
    "a frontier": ("THE (quick) fox", r"%f[%a]%a+"),
    "a path": ("/a/b/c.txt", r"^(.-)([^/]*)$"),
}


@pytest.mark.parametrize(("subject", "pattern"), EVERYDAY.values(), ids=EVERYDAY.keys())
def test_everyday_patterns_are_cheap_enough(subject: str, pattern: str) -> None:
    given_ = subject.encode(), pattern.encode()
    expected = plain("string.match", *given_)
    assert expected[0] is True
    assert guarded("string.match", *given_) == expected


@given(st.lists(st.integers(-50, 50) | st.floats(-50, 50), max_size=60))
@settings(max_examples=100, deadline=None)
def test_sort_sorts(values: list[float]) -> None:
    sort = GUARDED.lua.execute(
        b"local _ENV = ... return function(...) local t = {...} table.sort(t) return #t, table.unpack(t) end",
        GUARDED.env,
    )
    ok, count, *found = GUARDED.bounded(sort, *values)
    assert ok is True
    assert count == len(values)
    assert found == sorted(values)


@pytest.mark.parametrize(
    ("call", "given_", "expected"),
    [
        ("string.rep", (b"ab", 3, b"-"), (b"ab-ab-ab",)),
        ("string.rep", (b"ab", -1), (b"",)),
        ("string.format", (b"%5.1f|%s|%q", 3.14159, b"x", b"a\n"), (b'  3.1|x|"a\\\n"',)),
        ("string.find", (b"a.b", b".", 1, True), (2, 2)),
        ("string.byte", (b"abc", 1, -1), (97, 98, 99)),
        ("string.upper", (b"abc",), (b"ABC",)),
        ("utf8.len", ("äöü".encode(),), (3,)),
        ("math.max", (1, 3, 2), (3,)),
    ],
)
def test_the_guarded_library_answers_as_expected(call: str, given_: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    assert guarded(call, *given_) == (True, *expected)


@given(st.lists(st.tuples(PIECES, st.sampled_from(["*", "+", "-", "?", ""])), max_size=7), st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_a_pattern_that_is_let_through_costs_what_was_promised(parts: list[tuple[str, str]], length: int) -> None:
    """The analysis may refuse too much, never too little: a subject made to backtrack stays within the bound."""
    pattern = "".join(piece + mark for piece, mark in parts).encode() + b"!"
    for letter in (b"a", b"1", b" "):
        before = time.process_time()
        guarded("string.find", letter * length, pattern)
        assert time.process_time() - before < 1.0
