from __future__ import annotations

import ctypes
from typing import Any

import pytest

from gateway.core.heap import give_back


def test_giving_back_asks_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Library:
        def malloc_trim(self, pad: int) -> int:
            asked.append(pad)
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library())
    give_back()
    assert asked == [0]


def test_a_c_library_without_it_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = object()
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)
    give_back()
