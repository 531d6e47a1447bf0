"""The `gateway` command: parses, calls the rooms, prints. Errors say what to do next and end with code 1."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from typing_extensions import override

from gateway import __version__
from gateway.config import load
from gateway.core.errors import GatewayError
from gateway.core.log import set_up
from gateway.core.plain import typed

if TYPE_CHECKING:
    from gateway.wasm.plugins import PluginHost

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

    @override
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
    from gateway.app.gateway import Gateway  # noqa: PLC0415 - wasmtime and friends load only for the commands that need them

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
    from gateway.operations.check import check_all  # noqa: PLC0415 - as in `run`

    loaded = load(config_path)
    set_up("human", "error")
    findings = check_all(loaded)
    for finding in findings:
        click.echo(
            f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}{': ' + finding.detail if finding.detail else ''}"
        )
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@main.group()
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
    from gateway.wasm.build import build_all, build_plugin  # noqa: PLC0415 - as in `run`

    if every == (plugin_id is not None):
        raise click.UsageError("name one plugin, or --all")
    built = build_all(root) if plugin_id is None else [build_plugin(root / plugin_id)]
    for path in built:
        click.echo(f"built {path}")


@plugin.command("list")
@_CONFIG
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


@plugin.command("test")
@click.argument("plugin_id")
@_CONFIG
def plugin_test(plugin_id: str, config_path: Path) -> None:
    """Run a plugin's test vectors.

    \b
    Example:
      gateway plugin test jt808
    """
    with _plugins(config_path) as host:
        results = host.run_vectors(plugin_id)
    for result in results:
        if not result.ok:
            click.echo(f"FAIL {result.name}: {result.detail}")
    failed = sum(not result.ok for result in results)
    click.echo(f"{len(results) - failed} of {len(results)} vectors pass")
    if failed:
        sys.exit(1)


@plugin.command("decode")
@click.argument("plugin_id")
@click.argument("hex_bytes", nargs=-1, required=True)
@_CONFIG
def plugin_decode(plugin_id: str, hex_bytes: tuple[str, ...], config_path: Path) -> None:
    """Frame and decode bytes as they come on the wire; prints JSON.

    \b
    Example:
      gateway plugin decode jt808 7e000200000130410000000001737e
    """
    try:
        inputs = [bytes.fromhex(text) for text in hex_bytes]
    except ValueError as failure:
        raise click.UsageError(f"not hexadecimal: {failure}") from failure
    with _plugins(config_path) as host:
        outcomes = host.try_decode(plugin_id, inputs)
    click.echo(msgspec.json.format(msgspec.json.encode(outcomes)).decode())


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
    from gateway.operations.accounts import add_user  # noqa: PLC0415 - as in `run`

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
    from gateway.operations.accounts import set_password  # noqa: PLC0415 - as in `run`

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
    from gateway.operations.accounts import list_users  # noqa: PLC0415 - as in `run`

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
    from gateway.operations.accounts import upgrade  # noqa: PLC0415 - as in `run`

    click.echo(_run(upgrade(load(config_path))))


@main.group()
def simulate() -> None:
    """Send traffic as real devices do.

    \b
    Example:
      gateway simulate jt808 --devices 50 --rate 2 --seconds 20
    """


@simulate.command("jt808")
@click.option("--devices", default=10, show_default=True, help="Terminals.")
@click.option("--rate", default=1.0, show_default=True, help="Locations per second of each terminal.")
@click.option("--seconds", default=20.0, show_default=True, help="How long they report.")
@click.option("--burst", default=1, show_default=True, help="Locations sent in one segment, at the same rate.")
@click.option("--edition", type=click.Choice(["2013", "2019"]), default="2013", show_default=True)
@click.option("--first-phone", default=13_800_000_000, show_default=True, help="Number of the first terminal.")
@click.option("--host", default=None, help="Default: from the configuration; 127.0.0.1 with --port.")
@click.option("--port", default=None, type=int, help="Default: of the listener `jt808` in the configuration.")
@_CONFIG
def simulate_jt808(config_path: Path, host: str | None, port: int | None, **options: Any) -> None:
    """Simulate JT/T 808 terminals that register, authenticate, drive, and check every acknowledgement.

    \b
    Examples:
      gateway simulate jt808 --devices 50 --rate 2 --seconds 20
      gateway simulate jt808 --devices 1 --host 192.0.2.7 --port 8808
    """
    from gateway.simulate.jt808 import Options, Progress, run  # noqa: PLC0415 - as in `run`

    if port is None:
        loaded = load(config_path)
        entry = loaded.config.listeners.get("jt808", {})
        host = host or str(entry.get("bind") or loaded.config.server.bind)
        port = int(entry.get("port", 8808))
    host = host or "127.0.0.1"
    wanted = typed({"host": host, "port": port, **options}, Options, "simulate jt808")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    with ProgressBar(*columns, console=console) as bar:
        task = bar.add_task("jt808", total=wanted.seconds, state="connecting")

        def show(progress: Progress) -> None:
            state = f"{progress.online} online  {progress.sent} sent  {progress.acknowledged} acknowledged"
            bar.update(task, completed=min(progress.elapsed_s, wanted.seconds), state=state)

        result = _run(run(wanted, show))
    for name, value in msgspec.structs.asdict(result).items():
        if value not in (None, ""):
            click.echo(f"{name:24} {value:.3f}" if isinstance(value, float) else f"{name:24} {value}")
    if not result.clean:
        _fail("not every message was acknowledged")
