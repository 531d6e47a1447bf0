"""Running tools and keeping what they need: time limits, the cache, a line for whoever waits. Knows no language."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from gateway.core.errors import ConfigError

Tell: TypeAlias = Callable[[str], None]
"""Takes one line on what is being done."""

SHOWN_CHARS = 4000
"""Of a tool's complaint: a compiler's first error matters, not its thousandth."""


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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time fill a folder of the cache."""
    folder.parent.mkdir(parents=True, exist_ok=True)
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
    """Run a tool to its end and return its standard output; raises ConfigError with the tool's own words."""
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
            printed, complained = process.communicate(timeout=timeout_s)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the tool's own children hold its pipes open
            if isinstance(error, subprocess.TimeoutExpired):
                raise ConfigError(f"{what} did not finish in {timeout_s:g} s") from None
            raise
    if process.returncode:
        words = (complained.strip() or printed.strip()).decode(errors="replace")[:SHOWN_CHARS]
        raise ConfigError(f"{what} failed:\n{words or f'exit code {process.returncode}'}")
    return printed
