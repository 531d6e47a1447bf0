"""`gateway plugin`: the group, and what needs a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.terminal import CONFIG
from gateway.config import load
from gateway.core.log import set_up

if TYPE_CHECKING:
    from gateway.wasm.plugins import PluginHost


@click.group()
def plugin() -> None:
    """Make, build, list and try Wasm plugins.

    \b
    Examples:
      gateway plugin new --lang c meter
      gateway plugin build --all
      gateway plugin decode jt808 7e000200000138001380000001a97e
    """


@plugin.command("list")
@CONFIG
def plugin_list(config_path: Path) -> None:
    """List the plugins that the configuration finds, with their state; loads them, starts nothing.

    \b
    Example:
      gateway plugin list
    """
    with _plugins(config_path) as host:
        for status in host.plugins():
            reason = f"  {status.reason}" if status.reason else ""
            click.echo(f"{status.id}  {status.version}  {status.kind}  {status.state}{reason}")


@contextmanager
def _plugins(config_path: Path) -> Iterator[PluginHost]:
    """The configuration's plugins, loaded."""
    from gateway.wasm.plugins import PluginHost  # noqa: PLC0415 - as in `run`

    loaded = load(config_path)
    set_up("human", "error")
    host = PluginHost(loaded.config.wasm, [loaded.path(path) for path in loaded.config.plugins.dirs], None)
    try:
        host.load_all()
        yield host
    finally:
        host.close()
