"""A table as CSV text: RFC 4180, and nothing in it that a spreadsheet would take for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final

from gateway.reports.model import Cell

_FORMULA: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the full-width signs, too
"""A text that begins so is run by spreadsheets; an apostrophe before it makes them show it."""


def csv_of(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """The table with a header, lines ending in CR LF; None is an empty cell. Source: RFC 4180, section 2.

    All text is quoted: a spreadsheet that takes `;` for the separator would cut it there, and run what follows.
    """
    text = io.StringIO()
    lines = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    lines.writerow(_cell(column) for column in columns)
    lines.writerows([_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _cell(value: Cell) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return str(value).lower() if isinstance(value, bool) else value
