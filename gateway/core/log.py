"""Structured logs: JSON for machines, aligned text for people. Peer-sent text is made safe before it gets here."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

_SECRET_WORDS = ("password", "token", "secret", "credential", "authorization")


def set_up(style: Literal["json", "human"], level: str) -> None:
    """Send every log line to standard error in one style; lines below `level` cost nothing."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        # Plain tracebacks: the pretty ones print local variables, and with them every secret of a configuration.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            *([structlog.processors.format_exc_info] if style == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


def redact(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Blank every field whose name speaks of a secret."""
    for key in line:
        if any(word in key.lower() for word in _SECRET_WORDS):
            line[key] = "[redacted]"
    return line


def safe_text(text: str, most: int = 80) -> str:
    """Make text that a peer or a plugin chose fit for a log line: printable, one line, at most `most` characters."""
    shown = "".join(char if char.isprintable() else "?" for char in text[: most + 1])
    return shown if len(shown) <= most else shown[:most] + "..."
