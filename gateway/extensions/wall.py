"""The wall around an extension's code: whatever it raises comes back as one error that says whose code failed, at what.

Knows no hook and no caller; what a failure costs is the caller's to decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from gateway.core.log import safe_text
from gateway.core.tasks import told_to_end

_SAID_CHARS: Final = 500
"""Kept of what an extension's error says of itself: it goes into the log and the API."""


class ExtensionFailed(Exception):
    """An extension's code failed; it ends with who called the extension, and reaches no client.

    extension: its name, or the kind that it offers. called: what was called. cause: what the code raised, for the
        log's traceback. said: the text of that, one line. reason: its type and that text.
    """

    def __init__(self, extension: str, called: str, cause: BaseException) -> None:
        """Read the failure's text, which is the extension's code, too."""
        said = ""
        with suppress(Exception):
            said = safe_text(str(cause), _SAID_CHARS)
        self.extension = extension
        self.called = called
        self.cause = cause
        self.said = said
        self.reason = f"{type(cause).__name__}: {said}"
        super().__init__(f"{extension} failed at {called}: {self.reason}")


@contextmanager
def wall(extension: str, called: str, *passing: type[Exception]) -> Iterator[None]:
    """Around a call of an extension's code, awaited or not. Raises ExtensionFailed; errors of `passing` go through.

    So does a cancellation of the running task, and whatever else is no Exception. A cancellation that nobody asked for
    (the extension awaited what it had cancelled itself) is a failure as any: it would end the caller in silence.
    """
    try:
        yield
    except passing:
        raise
    except (Exception, asyncio.CancelledError) as failure:
        if told_to_end(failure):
            raise
        raise ExtensionFailed(extension, called, failure) from failure
