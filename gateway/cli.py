"""The `gateway` command line: parses, calls the rooms, prints. Errors say what to do and end with a code that is not 0."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway import __version__
from gateway.config import Loaded, load
from gateway.core.errors import GatewayError

T = TypeVar("T")

_CONFIG = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("config.toml"),
    show_default=True,
    help="Configuration file; relative paths in it start at its folder.",
)


class _Group(click.Group):
    """Turns the gateway's own errors into one line on standard error and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GatewayError as failure:
            _fail(str(failure))


def _fail(text: str) -> NoReturn:
    click.echo(f"gateway: {text}", err=True)
    sys.exit(1)


def _run(job: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(job)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """Flux Gateway: device traffic through sandboxed plugins and rules.

    \b
    Examples:
      gateway run                           start on ./config.toml
      gateway check -c plant.toml           look over a configuration, plugins and rules
      gateway simulate jt808 --devices 50   send traffic as real terminals do
    """


@main.command()
@_CONFIG
@click.option("--ready-file", type=click.Path(path_type=Path), help="Write the bound ports as JSON once all accept.")
def run(config_path: Path, ready_file: Path | None) -> None:
    """Start the gateway and serve until it is told to stop (Ctrl-C or SIGTERM). SIGHUP reads the configuration again.

    \b
    Examples:
      gateway run
      gateway run -c /etc/flux/config.toml --ready-file /run/flux/ready.json
      GATEWAY__HTTP__PORT=0 gateway run     any key of the file from the environment
    """
    from gateway.app import Gateway  # noqa: PLC0415 - wasmtime and friends load only for the commands that need them

    loaded = load(config_path)
    _run(Gateway(loaded, reload=lambda: load(config_path), announce=_announce).run(ready_file))


def _announce(text: str) -> None:
    """What a person must see once and no log may keep."""
    click.echo(text, err=True)


@main.command()
@_CONFIG
def check(config_path: Path) -> None:
    """Look over the configuration, products, plugins (with their test vectors), rules and scenes; start nothing.

    \b
    Example:
      gateway check -c config.toml
    """
    from gateway.check import check_all  # noqa: PLC0415 - as in `run`

    findings = check_all(load(config_path))
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}{': ' + finding.detail if finding.detail else ''}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@main.group()
def plugin() -> None:
    """Build, list and try Wasm plugins.

    \b
    Examples:
      gateway plugin build --all
      gateway plugin decode jt808 7e0002000001380013800000012a7e
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
    from gateway.wasm.build import build_all, build_plugin  # noqa: PLC0415 - as in `run`

    if every == (plugin_id is not None):
        raise click.UsageError("name one plugin, or --all")
    built = build_all(root) if plugin_id is None else [build_plugin(root / plugin_id)]
    for path in built:
        click.echo(f"built {path}")


@main.group()
def user() -> None:
    """Users, also while the gateway is stopped.

    \b
    Examples:
      gateway user list
      gateway user add alice --role viewer
      gateway user passwd admin
    """


_PASSWORD = click.password_option(
    envvar="GATEWAY_USER_PASSWORD", help="Asked for when not given; GATEWAY_USER_PASSWORD works too."
)


@user.command("add")
@click.argument("username")
@click.option("--role", "roles", multiple=True, help="Role of the user; may be repeated.")
@_PASSWORD
@_CONFIG
def user_add(username: str, roles: tuple[str, ...], password: str, config_path: Path) -> None:
    """Add a user.

    \b
    Example:
      gateway user add alice --role administrator
    """
    from gateway.accounts import add_user  # noqa: PLC0415 - as in `run`

    _run(add_user(load(config_path), username, password, roles))
    click.echo(f"user {username} added")


@user.command("passwd")
@click.argument("username")
@_PASSWORD
@_CONFIG
def user_passwd(username: str, password: str, config_path: Path) -> None:
    """Set a user's password; the user's tokens end.

    \b
    Example:
      gateway user passwd admin
    """
    from gateway.accounts import set_password  # noqa: PLC0415 - as in `run`

    _run(set_password(load(config_path), username, password))
    click.echo(f"password of {username} changed")


@user.command("list")
@_CONFIG
def user_list(config_path: Path) -> None:
    """List users with their roles.

    \b
    Example:
      gateway user list
    """
    from gateway.accounts import list_users  # noqa: PLC0415 - as in `run`

    for line in _run(list_users(load(config_path))):
        click.echo(line)


@main.group()
def db() -> None:
    """The database.

    \b
    Example:
      gateway db upgrade
    """


@db.command("upgrade")
@_CONFIG
def db_upgrade(config_path: Path) -> None:
    """Bring the database's schema to this version; a start does the same.

    \b
    Example:
      gateway db upgrade -c config.toml
    """
    from gateway.accounts import upgrade  # noqa: PLC0415 - as in `run`

    click.echo(_run(upgrade(load(config_path))))
