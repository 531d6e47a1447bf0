"""`gateway plugin check|test|bench|decode`: an author's tools, without configuration and without a running gateway."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.cli.plugin import PLUGINS, plugin
from gateway.core.errors import ConfigError
from gateway.core.log import set_up

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@plugin.command("check")
@click.argument("target", metavar="PLUGIN")
@click.option("--strict", is_flag=True, help="Take warnings for failures.")
@PLUGINS
def plugin_check(target: str, root: Path, *, strict: bool) -> None:
    """Look a plugin over: manifest, limits, units, README, capabilities, exports, vectors.

    PLUGIN is a folder, a package (.gwp) or an id.

    \b
    Examples:
      gateway plugin check ./meter
      gateway plugin check meter-1.0.0.gwp --strict
    """
    from gateway.workbench.check import check  # noqa: PLC0415 - wasmtime loads only for the commands that need it
    from gateway.workbench.piece import opened  # noqa: PLC0415 - as above

    set_up("human", "error")
    with opened(target, root) as piece:
        findings = check(piece)
    for finding in findings:
        click.echo(f"{_MARKS[finding.grade]} {finding.what}{': ' + finding.detail if finding.detail else ''}")
    bad = {"fail", "warn"} if strict else {"fail"}
    if any(finding.grade in bad for finding in findings):
        sys.exit(1)


@plugin.command("test")
@click.argument("target", metavar="PLUGIN")
@click.option("--seconds", type=click.FloatRange(0, 86_400), default=5.0, show_default=True, help="How long to fuzz.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of what is thrown.")
@PLUGINS
def plugin_test(target: str, seconds: float, seed: int, root: Path) -> None:
    """Run a plugin's vectors, then throw damaged input at it: a value or an error code must come out, never a trap.

    \b
    Examples:
      gateway plugin test ./meter
      gateway plugin test jt808 --seconds 60 --seed 7
    """
    from gateway.workbench.fuzz import fuzz  # noqa: PLC0415 - as above
    from gateway.workbench.piece import opened  # noqa: PLC0415 - as above

    set_up("human", "error")
    with opened(target, root) as piece:
        results = piece.prove()
        for result in results:
            if not result.ok:
                click.echo(f"FAIL {result.name}: {result.detail}")
        failed = sum(not result.ok for result in results)
        click.echo(f"{len(results) - failed} of {len(results)} vectors pass")
        if failed:
            sys.exit(1)
        if not seconds:
            return
        columns = (TextColumn("fuzz"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("fuzz", total=seconds, state="")

            def show(inputs: int) -> None:
                bar.update(task, completed=bar.tasks[0].elapsed or 0, state=f"{inputs:,} inputs")

            thrown = fuzz(piece, seconds=seconds, seed=seed, progress=show)
    click.echo(f"{thrown.inputs:,} damaged inputs: {thrown.accepted:,} values, {thrown.refused:,} error codes")
    if thrown.failure:
        click.echo(f"FAIL {thrown.failure}; input (seed {seed}, aux {thrown.failing_aux}): {thrown.failing_hex}")
        sys.exit(1)
    if not thrown.inputs:
        click.echo(
            f"FAIL nothing was thrown in {seconds:g} s, so nothing is proven: allow more --seconds, or 0 for none"
        )
        sys.exit(1)


@plugin.command("bench")
@click.argument("target", metavar="PLUGIN")
@click.option("--against", default="jt808", show_default=True, help="Plugin to compare with in the same run.")
@PLUGINS
def plugin_bench(target: str, against: str, root: Path) -> None:
    """Measure a plugin: frames a second in batches of 1, 8, 64 and 512, beside the reference in the same run.

    \b
    Example:
      gateway plugin bench ./meter
    """
    from gateway.workbench.measure import measure  # noqa: PLC0415 - as above
    from gateway.workbench.piece import opened  # noqa: PLC0415 - as above

    set_up("human", "error")
    with opened(target, root) as piece:
        if piece.release.manifest.kind != "codec":
            for figure in measure(piece, None):
                click.echo(f"{figure.per_s:,.0f} calls/s, {1e6 / figure.per_s:.1f} us each, from this thread")
            return
        with opened(against, root) as reference:
            figures = list(measure(piece, reference))
    click.echo(f"{'batch':>6} {'frames/s':>12} {'us/frame':>9} {'MB/s':>8} {'of ' + against:>10}")
    for figure in figures:
        click.echo(
            f"{figure.batch:>6} {figure.per_s:>12,.0f} {1e6 / figure.per_s:>9.2f}"
            f" {figure.bytes_per_s / 1e6:>8.1f} {figure.ratio or 0:>9.2f}x"
        )


@plugin.command("decode")
@click.argument("target", metavar="PLUGIN")
@click.argument("hex_bytes", nargs=-1, required=True)
@PLUGINS
def plugin_decode(target: str, hex_bytes: tuple[str, ...], root: Path) -> None:
    """Frame and decode bytes as they come on the wire; prints JSON.

    \b
    Examples:
      gateway plugin decode jt808 7e000200000130410000000001737e
      gateway plugin decode ./meter 0000d7
    """
    from gateway.wasm.trial import Trial  # noqa: PLC0415 - as above
    from gateway.workbench.piece import opened  # noqa: PLC0415 - as above

    try:
        inputs = [bytes.fromhex(text) for text in hex_bytes]
    except ValueError as failure:
        raise click.UsageError(f"not hexadecimal: {failure}") from failure
    set_up("human", "error")
    with opened(target, root) as piece:
        if piece.release.manifest.kind != "codec":
            raise ConfigError(
                f"plugin {piece.release.id} is of kind {piece.release.manifest.kind}: it decodes no frames"
            )
        with piece.codec() as codec:
            trial = Trial(codec, piece.release.framing)
            outcomes = [[one for part in trial.decode(data, len(data) + 1) for one in part] for data in inputs]
    click.echo(msgspec.json.format(msgspec.json.encode(outcomes)).decode())
