"""What every command shares: the configuration's option, a loop, and how an error leaves. Knows no command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import uvloop
from typing_extensions import override

from gateway.core.errors import GatewayError

T = TypeVar("T")

CONFIG = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("config.toml"),
    show_default=True,
    help="Configuration file; relative paths in it start at its folder.",
)


class Group(click.Group):
    """Turns the gateway's own errors into one line on standard error and exit code 1."""

    @override
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GatewayError as failure:
            fail(str(failure))


def fail(text: str) -> NoReturn:
    """Say what is wrong on standard error and end with code 1."""
    click.echo(f"gateway: {text}", err=True)
    sys.exit(1)


def run_to_end(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop as the gateway's own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(job)
