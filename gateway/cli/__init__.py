"""The `gateway` command: parses, calls the rooms, prints. Errors say what to do next and end with code 1."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gateway import __version__
from gateway.cli import plugin_author, plugin_packages, plugin_tools  # noqa: F401 - each registers its commands on `plugin`
from gateway.cli.accounts import db, user
from gateway.cli.plugin import plugin
from gateway.cli.simulate import simulate
from gateway.cli.terminal import CONFIG, Group, run_to_end
from gateway.config import load
from gateway.core.log import set_up


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
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
@CONFIG
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
    run_to_end(Gateway(loaded, reload=lambda: load(config_path), announce=_announce).run(ready_file))


def _announce(text: str) -> None:
    """What a person must see once and no log may keep."""
    click.echo(text, err=True)


@main.command()
@CONFIG
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


for group in (plugin, user, db, simulate):
    main.add_command(group)
