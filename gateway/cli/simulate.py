"""`gateway simulate`: traffic as real devices send it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from gateway.cli.terminal import CONFIG, fail, run_to_end
from gateway.config import load
from gateway.core.plain import typed


@click.group()
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
@CONFIG
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

        result = run_to_end(run(wanted, show))
    for name, value in msgspec.structs.asdict(result).items():
        if value not in (None, ""):
            click.echo(f"{name:24} {value:.3f}" if isinstance(value, float) else f"{name:24} {value}")
    if not result.clean:
        fail("not every message was acknowledged")
