"""`gateway plugin`: build, list and try Wasm plugins."""

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
    """Build, list and try Wasm plugins.

    \b
    Examples:
      gateway plugin build --all
      gateway plugin decode jt808 7e000200000138001380000001a97e
    """


_PLUGINS = click.option(
    "--plugins",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("plugins"),
    show_default=True,
    help="Folder of plugin folders.",
)


@plugin.command("build")
@click.argument("plugin_id", required=False)
@click.option("--all", "every", is_flag=True, help="Build every plugin of the folder.")
@_PLUGINS
def plugin_build(plugin_id: str | None, root: Path, *, every: bool) -> None:
    """Compile plugins from source, where their sources changed.

    \b
    Examples:
      gateway plugin build jt808
      gateway plugin build --all
    """
    from gateway.workbench.build import build_all, build_plugin  # noqa: PLC0415 - as in `run`

    if every == (plugin_id is not None):
        raise click.UsageError("name one plugin, or --all")
    built = build_all(root) if plugin_id is None else [build_plugin(root / plugin_id)]
    for path in built:
        click.echo(f"built {path}")


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
