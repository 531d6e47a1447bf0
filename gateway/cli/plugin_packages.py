"""`gateway plugin pack|keygen|sign|install|grant|rollback|remove`: plugins as packages, made and kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, get_args

import click

from gateway.cli.plugin import plugin
from gateway.cli.terminal import CONFIG
from gateway.config import load
from gateway.core.errors import ConfigError
from gateway.core.log import set_up
from gateway.wasm.manifest import Capability

_FILE: Final[Any] = click.Path(path_type=Path, dir_okay=False)
_FOLDER: Final[Any] = click.Path(path_type=Path, file_okay=False)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@plugin.command("pack")
@click.argument("target", metavar="PLUGIN")
@click.option("--out", type=_FOLDER, help="Folder for the package; the plugin's own where not given.")
def plugin_pack(target: str, out: Path | None) -> None:
    """Make a package of a built plugin: `<id>-<version>.gwp`, the same bytes on every machine.

    PLUGIN is a folder, or the id of one in ./plugins or of one that comes with the gateway.

    \b
    Examples:
      gateway plugin pack plugins/jt808
      gateway plugin pack lorawan-js --out dist
    """
    from gateway.wasm.package import open_package, pack_folder  # noqa: PLC0415 - as in `run`
    from gateway.workbench.shipped import plugin_folder  # noqa: PLC0415 - as in `run`

    folder = plugin_folder(target, Path("plugins"))
    path = pack_folder(folder, out or folder)
    click.echo(f"packed {path}\nsha256 {open_package(path).sha256}")


@plugin.command("keygen")
@click.argument("name")
@click.option("--into", type=_FOLDER, default=Path(), help="Folder for the key; the present one where not given.")
def plugin_keygen(name: str, into: Path) -> None:
    """Make a key to sign plugins with: NAME.key, for your eyes alone. Prints what its users put into config.toml.

    \b
    Example:
      gateway plugin keygen acme
    """
    from gateway.wasm.signing import make_key  # noqa: PLC0415 - as in `run`

    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a key; use letters, digits, - and _")
    path = into / f"{name}.key"
    public = make_key(path)
    click.echo(f"private key {path}: keep it to yourself, and a copy in a safe place", err=True)
    click.echo(f'[plugins.trusted]\n{name} = "{public}"')


@plugin.command("sign")
@click.argument("target", metavar="PACKAGE", type=click.Path(path_type=Path))
@click.option("--key", "key_file", type=_FILE, required=True, help="Private key, as `gateway plugin keygen` makes it.")
def plugin_sign(target: Path, key_file: Path) -> None:
    """Sign a package, or a plugin's folder, in its place.

    \b
    Examples:
      gateway plugin sign meter-1.0.0.gwp --key acme.key
      gateway plugin sign plugins/meter --key acme.key     writes plugins/meter/plugin.sig
    """
    from gateway.wasm.package import open_package, signed_folder, signed_package  # noqa: PLC0415 - as in `run`

    if target.is_dir():
        public = signed_folder(target, key_file)
        click.echo(f"signed {target}\npublic key {public}")
    else:
        public = signed_package(target, key_file)
        click.echo(f"signed {target}\npublic key {public}\nsha256 {open_package(target).sha256}")


@plugin.command("install")
@click.argument("package", type=_FILE)
@click.option("--activate/--no-activate", default=True, help="Run the version, or only keep it.")
@CONFIG
def plugin_install(package: Path, config_path: Path, *, activate: bool) -> None:
    """Install a package below the data directory; a running gateway takes it up by itself.

    The version's test vectors run first: one that breaks them is not kept.

    \b
    Examples:
      gateway plugin install meter-1.0.0.gwp
      gateway plugin install meter-1.1.0.gwp --no-activate -c /etc/flux/config.toml
    """
    from gateway.operations.plugins import install  # noqa: PLC0415 - as in `run`

    set_up("human", "error")
    report = install(load(config_path), package, activate=activate)
    installed = report.installed
    signed = f"signed by {installed.signed_by}" if installed.signed_by else "not signed"
    click.echo(f"installed {installed.id} {installed.version}, {signed}\nsha256 {installed.sha256}")
    if report.missing:
        caps = " ".join(report.missing)
        click.echo(f"it asks for {caps}; allow it with: gateway plugin grant {installed.id} {caps}")
    elif not report.active:
        click.echo("kept, not active")


@plugin.command("grant")
@click.argument("plugin_id")
@click.argument("caps", nargs=-1, type=click.Choice(get_args(Capability)))
@click.option("--only", is_flag=True, help="Take back what was granted before; without CAPS, everything.")
@CONFIG
def plugin_grant(plugin_id: str, caps: tuple[Capability, ...], config_path: Path, *, only: bool) -> None:
    """Let a plugin use capabilities beyond `[wasm] default_grants`; what waited for them runs.

    \b
    Examples:
      gateway plugin grant dingtalk emit
      gateway plugin grant dingtalk --only
    """
    from gateway.operations.plugins import grant  # noqa: PLC0415 - as in `run`

    if not caps and not only:
        raise click.UsageError("name capabilities, or take all back with --only")
    set_up("human", "error")
    decided = grant(load(config_path), plugin_id, caps, only=only)
    click.echo(f"{plugin_id} may use, beside the default ones: {' '.join(decided.granted or ()) or 'none'}")


@plugin.command("rollback")
@click.argument("plugin_id")
@CONFIG
def plugin_rollback(plugin_id: str, config_path: Path) -> None:
    """Go back to the version before; a running gateway follows by itself.

    \b
    Example:
      gateway plugin rollback meter
    """
    from gateway.operations.plugins import roll_back  # noqa: PLC0415 - as in `run`

    set_up("human", "error")
    decided = roll_back(load(config_path), plugin_id)
    click.echo(
        f"{plugin_id}: {f'version {decided.active}' if decided.active else 'the version in the folder'} is active"
    )


@plugin.command("remove")
@click.argument("plugin_id")
@click.argument("version", required=False)
@CONFIG
def plugin_remove(plugin_id: str, version: str | None, config_path: Path) -> None:
    """Remove an installed plugin with its grants, or one version of it. Plugins in folders are yours to delete.

    \b
    Examples:
      gateway plugin remove meter 1.0.0
      gateway plugin remove meter
    """
    from gateway.operations.plugins import remove  # noqa: PLC0415 - as in `run`

    set_up("human", "error")
    remove(load(config_path), plugin_id, version)
    click.echo(f"removed {plugin_id}{f' {version}' if version else ''}")
