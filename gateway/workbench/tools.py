"""Running tools and keeping what they need: time limits, the cache, a line for whoever waits. Knows no language."""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TypeAlias

from gateway.core.errors import ConfigError

Tell: TypeAlias = Callable[[str], None]
"""Takes one line on what is being done."""

SHOWN_CHARS = 4000
"""Of a tool's complaint: a compiler's first error matters, not its thousandth."""
MOST_PRINTED_BYTES = 16 << 20
"""Of a tool's output, and of its complaints: a table of all characters has some 200 KB, and is the longest so far."""
_PIECE_BYTES = 1 << 16


def tell_on_stderr(line: str) -> None:
    """Show progress where it mixes with no output."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def cache_folder() -> Path:
    """Where toolchains and fetched sources are kept: in the virtual environment, else in the user's cache."""
    if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / ".plugin-toolchains"
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(home) / "flux-gateway"


def made(folder: Path) -> Path:
    """A folder of the cache, made where it is not there. Raises ConfigError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: toolchains cannot be kept there: {error.strerror}; name another place with XDG_CACHE_HOME"
        ) from error
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time fill a folder of the cache."""
    made(folder.parent)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_tool(
    command: Sequence[str],
    what: str,
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Run a tool to its end and return its standard output; raises ConfigError with the tool's own words.

    One that prints more than MOST_PRINTED_BYTES, or takes longer than `timeout_s`, is ended with its children.
    """
    ends = monotonic() + timeout_s
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is ours, its flags are the plugin author's
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(f"{what} cannot be started: {command[0]}: {error.strerror}") from error
    with process:
        try:
            printed, complained = _all_output(process, what, ends)
            process.wait(max(0.0, ends - monotonic()))
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the tool's own children hold its pipes open
            if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
                raise ConfigError(f"{what} did not finish in {timeout_s:g} s") from None
            raise
    if process.returncode:
        words = _words(complained.strip() or printed.strip())
        raise ConfigError(f"{what} failed:\n{words or f'exit code {process.returncode}'}")
    return printed


def _all_output(process: subprocess.Popen[bytes], what: str, ends: float) -> tuple[bytes, bytes]:
    """What a process prints and complains until it closes both; raises TimeoutError, or ConfigError past the bound."""
    assert process.stdout is not None  # noqa: S101 - run_tool asks for both pipes
    assert process.stderr is not None  # noqa: S101 - as above
    outputs = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    printed, complained = outputs.values()
    with selectors.DefaultSelector() as selector:
        for descriptor in outputs:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, ends - monotonic()))
            if not ready or monotonic() > ends:  # one that prints a little for ever is always ready
                raise TimeoutError
            for key, _ in ready:
                piece = os.read(key.fd, _PIECE_BYTES)
                output = outputs[key.fd]
                output += piece
                if len(output) > MOST_PRINTED_BYTES:
                    raise ConfigError(f"{what} prints more than {MOST_PRINTED_BYTES} bytes:\n{_words(bytes(output))}")
                if not piece:
                    selector.unregister(key.fd)
    return bytes(printed), bytes(complained)


def _words(output: bytes) -> str:
    return output[: 4 * SHOWN_CHARS].decode(errors="replace")[:SHOWN_CHARS]
