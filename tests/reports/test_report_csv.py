"""Tables as CSV text: any reader gets back the cells, and no spreadsheet runs one."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.reports.csv_text import csv_of

cells = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


def test_lines_end_in_cr_lf_and_all_text_is_quoted() -> None:
    text = csv_of(["shift", "mean, °C", 'a "b"'], [["早班", 1.5, None], [True, -2, "two\nlines"]])
    assert text == '"shift","mean, °C","a ""b"""\r\n"早班",1.5,""\r\n"true",-2,"two\nlines"\r\n'


def test_text_stays_one_cell_where_a_semicolon_separates() -> None:
    text = csv_of(["a;=1+1"], [["x;=cmd|' /c calc'!A0"]])
    assert list(csv.reader(io.StringIO(text, newline=""), delimiter=";")) == [["a;=1+1"], ["x;=cmd|' /c calc'!A0"]]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "=c|x!A0"])
def test_no_text_begins_as_a_formula_does(text: str) -> None:
    (header,), (cell,) = csv.reader(io.StringIO(csv_of([text], [[text]]), newline=""))
    assert header == cell == f"'{text}"


def test_numbers_stay_numbers() -> None:
    assert csv_of(["n"], [[-1], [-1.5], [1e300]]) == '"n"\r\n-1\r\n-1.5\r\n1e+300\r\n'


@given(st.lists(st.lists(cells, min_size=2, max_size=2), max_size=5))
def test_any_table_is_read_back_cell_by_cell(rows: list[list[object]]) -> None:
    text = csv_of(["a", "b"], rows)  # type: ignore[arg-type]
    read = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert len(read) == len(rows)
    for line, row in zip(read, rows, strict=True):
        for shown, cell in zip(line, row, strict=True):
            if isinstance(cell, str):
                assert shown.removeprefix("'") == cell.removeprefix("'")
            elif isinstance(cell, bool):
                assert shown == str(cell).lower()
            else:
                assert shown == ("" if cell is None else str(cell))
