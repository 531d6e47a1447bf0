"""`gateway plugin new|build`: from nothing to a module, without configuration and without a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from gateway.cli.plugin import PLUGINS, plugin
from gateway.core.errors import ConfigError
from gateway.wasm.manifest import MANIFEST_NAME

_BESIDE = ""
_LANGUAGES = ("c", "zig", "as", "go", "rust", "js")


@plugin.command("new")
@click.argument("name")
@click.option("--lang", type=click.Choice(_LANGUAGES), required=True, help="as is AssemblyScript.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to make it in; ./plugins where there is one, else the present one.",
)
def plugin_new(name: str, lang: str, into: Path | None) -> None:
    """Make a plugin that builds and passes its own tests, to put your device into.

    \b
    Examples:
      gateway plugin new --lang c meter
      gateway plugin new --lang rust meter --into /srv/plugins
    """
    from gateway.workbench.templates import Template, new_plugin  # noqa: PLC0415 - as in `run`

    template: Template = next(one for one in get_args(Template) if one == lang)
    made = new_plugin(template, name, into or _default_folder())
    click.echo(f"made {made.folder}: {', '.join(made.files)}")
    click.echo(
        f"next:\n  gateway plugin build {made.folder}\n  gateway plugin test {made.folder}\n"
        f"  gateway plugin decode {made.folder} {made.frame}"
    )


@plugin.command("build")
@click.argument("target", metavar="PLUGIN", required=False)
@click.option("--all", "every", is_flag=True, help="Build every plugin of the folder --plugins.")
@click.option("--force", is_flag=True, help="Build what is up to date, too.")
@click.option(
    "--package",
    "packages",
    type=click.Path(file_okay=False),
    is_flag=False,
    flag_value=_BESIDE,
    help="Make the package, too, in this folder, or beside the module where none is named.",
)
@PLUGINS
def plugin_build(target: str | None, root: Path, packages: str | None, *, every: bool, force: bool) -> None:
    """Compile plugins from source, where their sources changed. PLUGIN is a folder or an id.

    A compiler that is pinned is fetched on the first build that needs it.

    \b
    Examples:
      gateway plugin build ./meter
      gateway plugin build jt808
      gateway plugin build --all
      gateway plugin build ./meter --package dist
    """
    from gateway.workbench.build import build_all, build_plugin  # noqa: PLC0415 - as in `run`
    from gateway.workbench.shipped import plugin_folder  # noqa: PLC0415 - as above

    if every == (target is not None):
        raise click.UsageError("name one plugin, or --all")

    def say(path: Path) -> None:
        _say_built(path)
        if packages is not None:
            _pack(path, packages)

    if target is None:
        if not build_all(root, force=force, built=say):
            raise ConfigError(f"{root}: no plugin to build below it; name the folder of plugin folders with --plugins")
    else:
        say(build_plugin(plugin_folder(target, root), force=force))


def _pack(built: Path, packages: str) -> None:
    from gateway.wasm.package import pack_folder  # noqa: PLC0415 - as in `run`

    folder = next(parent for parent in built.parents if (parent / MANIFEST_NAME).exists())
    click.echo(f"packed {pack_folder(folder, folder if packages == _BESIDE else Path(packages))}")


def _default_folder() -> Path:
    plugins = Path("plugins")
    return plugins if plugins.is_dir() else Path()


def _say_built(path: Path) -> None:
    click.echo(f"built {path}" if path.suffix == ".wasm" else f"nothing to build: a runtime runs {path}")
