"""Every known way out of a Lua sandbox or into an endless one, each contained by the guards without a kill."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator

import pytest
from fakes.rules_fakes import message

from gateway.rules.config import RulesConfig, SandboxLimits
from gateway.rules.sandbox import RuleSandbox

LIMITS = SandboxLimits(budget=300_000, cpu_ms=60, memory_bytes=8 * 1024 * 1024)
CONFIG = RulesConfig(limits=LIMITS)
OVERRUN, ERROR, FINE = "overrun", "error", "fine"

SPIN = "local function spin() while true do end end "

ENDLESS = {
    "a plain loop": "while true do end",
    "a loop of calls": "local function f() end while true do f() end",
    "a goto loop": "::again:: goto again",
    "a numeric loop": "for i = 1, math.huge do end",
    "a loop that swallows errors": SPIN + "while true do pcall(spin) end",
    "a loop that handles errors": SPIN + "while true do xpcall(spin, function() end) end",
    "an error handler that loops": SPIN + "xpcall(error, spin)",
    "an error handler that fails": "local function h() error('again') end while true do xpcall(error, h) end",
    "an error handler that loops after the budget's error": SPIN + "xpcall(spin, spin)",
    "a coroutine closed while the budget's error passes": (
        SPIN + "local c = coroutine.create(function() local x <close> = setmetatable({}, {__close = spin}) spin() end)"
        " local y <close> = setmetatable({}, {__close = function() coroutine.close(c) end}) coroutine.resume(c)"
    ),
    "a coroutine resumed while the budget's error passes": (
        SPIN + "local c = coroutine.create(spin)"
        " local y <close> = setmetatable({}, {__close = function() coroutine.resume(c) end}) spin()"
    ),
    "nested pcall": SPIN + "local f = spin for i = 1, 50 do local g = f f = function() pcall(g) spin() end end f()",
    "a wrapped coroutine": SPIN + "coroutine.wrap(spin)()",
    "a resumed coroutine": SPIN + "while true do coroutine.resume(coroutine.create(spin)) end",
    "a coroutine in a coroutine": SPIN + "coroutine.wrap(function() coroutine.wrap(spin)() end)()",
    "coroutines that end just in time": (
        "while true do coroutine.wrap(function() for i = 1, 400 do local x = i end end)() end"
    ),
    "a closed coroutine": (
        SPIN + "local c = coroutine.create(function() local x <close> = setmetatable({}, {__close = spin})"
        " coroutine.yield() end) coroutine.resume(c) coroutine.close(c) spin()"
    ),
    "yields without end": (
        "local c = coroutine.wrap(function() while true do coroutine.yield() end end) while true do c() end"
    ),
    "__index": SPIN + "local t = setmetatable({}, {__index = spin}) local x = t.x",
    "__newindex": SPIN + "setmetatable({}, {__newindex = spin}).x = 1",
    "__tostring": SPIN + "tostring(setmetatable({}, {__tostring = spin}))",
    "__tostring in format": SPIN + "string.format('%s', setmetatable({}, {__tostring = spin}))",
    "__tostring in print": SPIN + "print(setmetatable({}, {__tostring = spin}))",
    "__concat": SPIN + "local x = setmetatable({}, {__concat = spin}) .. 'x'",
    "__concat with a string first": SPIN + "local x = 'x' .. setmetatable({}, {__concat = spin})",
    "__close": SPIN + "local x <close> = setmetatable({}, {__close = spin})",
    "__close while the budget's error passes": SPIN + "local x <close> = setmetatable({}, {__close = spin}) spin()",
    "__len": SPIN + "local x = #setmetatable({}, {__len = spin})",
    "__len in sort": SPIN + "table.sort(setmetatable({}, {__len = spin}))",
    "__eq": SPIN + "local m = {__eq = spin} local x = setmetatable({}, m) == setmetatable({}, m)",
    "__lt": SPIN + "local m = {__lt = spin} local x = setmetatable({}, m) < setmetatable({}, m)",
    "__call": SPIN + "setmetatable({}, {__call = spin})()",
    "__pairs": SPIN + "for k in pairs(setmetatable({}, {__pairs = spin})) do end",
    "an iterator": "for x in function() return 1 end do end",
    "an order function": SPIN + "table.sort({3, 2, 1}, spin)",
    "a replacement function": SPIN + "string.gsub('aaa', 'a', spin)",
    "a comparison in a sort of many": "local t = {} for i = 1, 200000 do t[i] = -i end table.sort(t)",
    "concat through __index": SPIN + "table.concat(setmetatable({}, {__index = spin}), '', 1, 5)",
    "unpack through __index": SPIN + "table.unpack(setmetatable({}, {__index = spin}), 1, 5)",
    "an environment that loops": SPIN + "local _ENV = setmetatable({}, {__index = spin}) local x = anything",
    "long strings, few instructions": "local s = ('x'):rep(1000000) while true do local t = s .. 'y' end",
    "upper case for ever": "local s = ('x'):rep(1000000) while true do local t = s:upper() end",
    "a gmatch that has ended and is asked again": ("local f = ('a'):rep(1400):gmatch('a+b') while true do f() end"),
    "tail calls": "local function f() return f() end f()",
    "mutual tail calls": "local a, b function a() return b() end function b() return a() end a()",
    "inserting at the front": "local t = {} while true do table.insert(t, 1, 1) end",
}

BOMBS = {
    "deep recursion": "local function f() return 1 + f() end f()",
    "string doubling": "local s = 'x' while true do s = s .. s end",
    "table growth": "local t = {} while true do t[#t + 1] = {} end",
    "closures": "local t = {} for i = 1, math.huge do t[i] = function() return i end end",
    "globals": "for i = 1, math.huge do _G['k' .. i] = ('x'):rep(1000) .. i end",
    "coroutines": "local t = {} for i = 1, math.huge do t[i] = coroutine.create(function() end) end",
    "state": "for i = 1, math.huge do state['k' .. i] = ('x'):rep(1000) .. i end",
    "swallowed memory errors": "while true do pcall(function() local s = 'x' while true do s = s .. s end end) end",
}

REFUSED = {
    "rep of nothing": ("string.rep('', 1 << 31)", "too long"),
    "rep of much": ("string.rep('x', 1 << 30)", "too long"),
    "rep with overflowing product": ("string.rep('xx', math.maxinteger)", "too long"),
    "rep through the metatable": ("local s = (''):rep(1 << 31)", "too long"),
    "rep with a long separator": ("string.rep('', 1000000, ('x'):rep(1000))", "too long"),
    "move": ("table.move({}, 1, 1e8, 2)", "too many items"),
    "move backwards over the whole range": ("table.move({}, math.mininteger, 1e8, 2)", ""),
    "unpack": ("table.unpack({}, 1, 1e7)", "too many items"),
    "concat range": ("table.concat({}, '', 1, 1e9)", "too many items"),
    "concat separator": (
        "local t = {} for i = 1, 2000 do t[i] = '' end table.concat(t, ('x'):rep(100000))",
        "too long",
    ),
    "concat of nil": ("table.concat({1, nil, 3}, ',', 1, 3)", "invalid value"),
    "sort of too many": (
        "table.sort(setmetatable({}, {__len = function() return 1e9 // 1 | 0 end}))",
        "too many items",
    ),
    "insert with a huge length": (
        "table.insert(setmetatable({}, {__len = function() return 1 << 40 end}), 1, 1)",
        "too many",
    ),
    "remove with a huge length": (
        "table.remove(setmetatable({}, {__len = function() return 1 << 40 end}), 1)",
        "too many",
    ),
    "lazy dots": ("string.find(('a'):rep(25), '.-.-.-.-.-.-.-b')", "costs too much"),
    "stars": ("string.find(('a'):rep(40), ('a*'):rep(22) .. 'b')", "costs too much"),
    "stars in match": ("string.match(('a'):rep(40), ('a*'):rep(22) .. 'b')", "costs too much"),
    "stars in gmatch": ("for x in string.gmatch(('a'):rep(40), ('a*'):rep(22) .. 'b') do end", "costs too much"),
    "an anchor that gmatch takes literally": ("for x in ('^'):rep(1000000):gmatch('^[%^]+x') do end", "costs too much"),
    "stars in gsub": ("string.gsub(('a'):rep(40), ('a*'):rep(22) .. 'b', '')", "costs too much"),
    "stars through the metatable": ("local x = ('a'):rep(40):find(('a*'):rep(22) .. 'b')", "costs too much"),
    "stars through a call": ("pcall(string.find, 'x', 'x') string.find(('a'):rep(40), ('a*'):rep(22) .. 'b')", "costs"),
    "question marks": ("string.find(('a'):rep(30), ('a?'):rep(30) .. ('a'):rep(30) .. 'b')", "costs too much"),
    "sets": ("string.find(('a'):rep(60), ('[a-z]*'):rep(9) .. '%d')", "costs too much"),
    "classes that overlap": ("string.find(('1'):rep(60), ('%w*%d*'):rep(5) .. 'x')", "costs too much"),
    "captures": ("string.find(('a'):rep(60), ('(a*)'):rep(9) .. 'b')", "costs too much"),
    "back references": ("string.find(('a'):rep(3000), '(a*)%1b')", "costs too much"),
    "frontiers": ("string.find(('a'):rep(60), ('a*%f[a]'):rep(9) .. 'b')", "costs too much"),
    "balances": ("string.find(('('):rep(10000), '%b()%b()%b()x')", "costs too much"),
    "a plain search for a long text": (
        "string.find(('a'):rep(1000000), ('a'):rep(500000) .. 'b', 1, true)",
        "too long",
    ),
    "gsub on much": ("local s = ('a'):rep(1000000):gsub('a', 'bb')", "too long"),
    "format width": ("string.format('%1000d', 1)", "invalid conversion"),
    "format of much": ("local s = ('x'):rep(600000) string.format('%s%s', s, s)", "too long"),
    "pack of much": ("string.pack('c1000000000', '')", "too long"),
    "a long pattern": ("string.find('a', ('a'):rep(2000))", "pattern too long"),
    "an open set": ("string.find('a', '[a')", "malformed pattern"),
    "a pattern that ends early": ("string.find('a', 'a%')", "malformed pattern"),
    "finalizers": ("setmetatable({}, {__gc = function() while true do end end})", "__gc"),
    "deep recursion in metamethods": (
        "local m = {} m.__index = function(t, k) return t[k .. 'x'] end local x = setmetatable({}, m).a",
        "overflow",
    ),
    "deep recursion in pcall": ("local function f() return 1 + select(2, pcall(f)) end f()", ""),
    "dump": ("string.dump(function() end)", "nil value (field 'dump')"),
    "dump through a string": ("local f = (''):dump()", "nil value (method 'dump')"),
    "load": ("load('return 1')()", "nil value (global 'load')"),
    "load of bytecode": ("load('\\27Lua')", "nil value (global 'load')"),
    "loadstring": ("loadstring('return 1')", "nil value"),
    "dofile": ("dofile('/etc/passwd')", "nil value"),
    "require": ("require('os')", "nil value"),
    "package": ("local x = package.loaded", "nil value"),
    "io": ("io.open('/etc/passwd')", "nil value"),
    "os": ("os.execute('true')", "nil value"),
    "debug": ("debug.sethook()", "nil value"),
    "python": ("python.eval('1')", "nil value"),
    "garbage collection": ("collectgarbage('stop')", "nil value"),
    "the strings' metatable": ("getmetatable('').__index.rep = nil", "index a boolean"),
    "a new metatable for strings": ("setmetatable('', {})", "table expected"),
    "the quality's metatable": ("getmetatable(msg.quality).__index = nil", "index a boolean"),
    "an error that is a table": ("error({})", "error object is a table"),
    "an error whose text loops": (
        "error(setmetatable({}, {__tostring = function() while true do end end}))",
        "error object is a table",
    ),
    "an error that is nothing": ("error()", "error object is a nil"),
    "a yield": ("coroutine.yield()", "outside a coroutine"),
    "a NaN key": ("state[0/0] = 1", "NaN"),
    "state with a cycle": ("state.me = state", "nested too deeply"),
    "state with a function": ("state.f = print", "a function cannot be kept"),
    "state with a coroutine": ("state.c = coroutine.create(print)", "a thread cannot be kept"),
    "state with NaN": ("state.n = 0/0", "must be finite"),
    "state with infinity": ("state.n = math.huge", "must be finite"),
    "state with number keys": ("state[1] = 1", "keys must be text"),
    "state with mixed keys": ("state.t = {1, x = 1}", "either the keys 1..n or text"),
    "state with holes far away": ("state.t = {[1000000] = 1}", "either the keys 1..n or text"),
    "state that is huge": ("state.s = ('x'):rep(100000)", "too large"),
    "state of many keys": ("for i = 1, 2000 do state['k' .. i] = i end", "state:"),
    "state that is not text": ("state.s = '\\xff\\xfe'", "must be UTF-8"),
    "state with a key that is not text": ("state['\\xff'] = 1", "must be UTF-8"),
    "state with surrogates": ("state.s = '\\xed\\xa0\\x80'", "must be UTF-8"),
    "a million actions": ("for i = 1, 1000000 do alarm.clear() end", "more than 64 actions"),
    "huge actions": ("alarm.raise{data = {s = ('x'):rep(500000)}}", "too large"),
    "many large actions": ("for i = 1, 60 do alarm.raise{data = {s = ('x'):rep(10000)}} end", "actions of more than"),
    "an action with a function": ("alarm.raise{data = {f = print}}", "a function cannot be kept"),
}

FINE_BUT_BOUNDED = {
    "deep recursion that is caught": "local function f() return 1 + f() end pcall(f)",
    "an invalid order function": "table.sort({3, 1, 2, 5, 4}, function() return true end)",
    "a weak table": "local t = setmetatable({}, {__mode = 'k'}) t[{}] = 1",
    "many long log lines": "local s = ('x'):rep(10000) for i = 1, 10000 do log.info(s) end",
    "log lines that are not text": "log.info('\\xff\\xfe')",
    "own library": "string.rep = nil table = nil pcall = nil",
    "many values": "local t = {} for i = 1, 5000 do t[i] = i end select('#', table.unpack(t))",
}


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A case that escapes must not hold the whole run: it ends the process with the place where it hangs."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def run(body: str) -> tuple[str, str]:
    """Outcome and error of a handler, called once."""
    sandbox = RuleSandbox(CONFIG)
    error, _ = sandbox.load(f"on.message{{}}(function(msg, state) {body} end)".encode(), "case.lua")
    assert error == ""
    answer = sandbox.on_message(1, message())
    if answer is None:
        return FINE, ""
    outcome, text, _, _ = answer
    return (FINE, ERROR, OVERRUN)[outcome], (text or b"").decode() if outcome else ""


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_never_ends_is_ended_by_the_budget(body: str) -> None:
    began = time.process_time()
    outcome, error = run(body)
    assert outcome == OVERRUN
    assert "spent" in error or "memory" in error
    assert time.process_time() - began < 5, "contained, but only after much work"


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS.keys())
def test_a_memory_bomb_ends_in_an_overrun(body: str) -> None:
    outcome, error = run(body)
    assert outcome == OVERRUN
    assert "memory" in error or "spent" in error


@pytest.mark.parametrize(("body", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_an_ordinary_error(body: str, expected: str) -> None:
    outcome, error = run(body)
    assert (outcome, expected in error) == (ERROR, True), (outcome, error)


@pytest.mark.parametrize("body", FINE_BUT_BOUNDED.values(), ids=FINE_BUT_BOUNDED.keys())
def test_what_is_odd_but_harmless_passes(body: str) -> None:
    assert run(body) == (FINE, "")


LOADING = {
    "a loop": ("while true do end", "spent"),
    "a bomb": ("local s = 'x' while true do s = s .. s end", "not enough memory"),
    "bytecode": ("\x1bLua\x54\x00", "attempt to load a binary chunk"),
    "a syntax error": ("on.message{", "case.lua:1:"),
    "a deep expression": ("return " + "(" * 5000 + "1" + ")" * 5000, "overflow"),
    "no subscription": ("local x = 1", "subscribes to nothing"),
    "no handler": ("on.message{}", "has no function after it"),
    "an unknown field": ("on.message{prodct = 'x'}(print)", "unknown field 'prodct'"),
    "too many subscriptions": ("for i = 1, 200 do on.event{}(print) end", "100 times"),
    "an action at load time": ("alarm.clear()", ""),
    "a yield": ("coroutine.yield()", "outside a coroutine"),
    "a looping environment": ("setmetatable(_G, {__index = function() while true do end end}) local x = y", "spent"),
}


@pytest.mark.parametrize(("source", "expected"), LOADING.values(), ids=LOADING.keys())
def test_a_file_that_misbehaves_while_loading_is_refused_with_the_reason(source: str, expected: str) -> None:
    sandbox = RuleSandbox(CONFIG)
    error, declared = sandbox.load(source.encode(), "case.lua")
    assert error
    assert expected in error
    assert declared == b""


def test_no_python_object_can_be_reached_through_any_value() -> None:
    sandbox = RuleSandbox(CONFIG)
    error, _ = sandbox.load(
        b"""
        local function walk(value, seen, path)
          if type(value) == 'userdata' then error('userdata at ' .. path) end
          if type(value) ~= 'table' or seen[value] then return end
          seen[value] = true
          for k, v in next, value do walk(k, seen, path) walk(v, seen, path .. '.' .. tostring(k)) end
          local m = getmetatable(value)
          if type(m) == 'table' then walk(m, seen, path .. '!') end
        end
        on.message{}(function(msg, state) walk({msg, state, _G, _ENV}, {}, '') error('walked') end)
        """,
        "case.lua",
    )
    assert error == ""
    answer = sandbox.on_message(1, message(x=1, nested={"a": [1, {"b": None}]}, text="x", flag=True))
    assert answer is not None
    assert answer[1] is not None
    assert answer[1].endswith(b"walked")


def test_an_error_names_the_line_and_an_overrun_too() -> None:
    assert run("\n\n local x = nil + 1")[1].startswith("case.lua:3:")
    assert run("\n while true do end")[1].startswith("case.lua:2:")


def test_a_spent_budget_is_whole_again_at_the_next_call() -> None:
    sandbox = RuleSandbox(CONFIG)
    error, _ = sandbox.load(
        b"on.message{}(function(msg, state) if msg.values.x == 1 then while true do end end state.n = 1 end)",
        "case.lua",
    )
    assert error == ""
    first, second = sandbox.on_message(1, message(x=1)), sandbox.on_message(1, message(x=2))
    assert first is not None
    assert first[0] == 2
    assert second is not None
    assert second[0] == 0
