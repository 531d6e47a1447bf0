"""`gateway plugin`: the group, the option that its commands share, and the list that needs a configuration."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.terminal import CONFIG
from gateway.config import load
from gateway.core.log import set_up

PLUGINS = click.option(
    "--plugins",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("plugins"),
    show_default=True,
    help="Folder of plugin folders, where PLUGIN is an id.",
)


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
    """List the plugins that a start would find: id, version, kind, state, source, signer, capabilities.

    They are loaded, nothing is started.

    \b
    Example:
      gateway plugin list
    """
    from gateway.operations.plugins import list_plugins  # noqa: PLC0415 - as in `run`

    loaded = load(config_path)
    set_up("human", "error")
    for status in list_plugins(loaded):
        shown = next((one for one in status.versions if one.version == status.version), None)
        source = "-" if shown is None else shown.source
        signer = "not signed" if shown is None or not shown.signed_by else f"signed by {shown.signed_by}"
        caps = "caps " + (" ".join(status.caps.asked) or "none")
        reason = f"  {status.reason}" if status.reason else ""
        fields = (status.id, status.version, status.kind, status.state, source, signer, caps)
        click.echo("  ".join(field or "-" for field in fields) + reason)
