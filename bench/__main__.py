"""`make bench`: prints the benchmark table. Ratios in one run are what counts; the machine is named above the table.

Names of benchmarks may follow: `python -m bench framers spine`.
"""

from __future__ import annotations

import importlib
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

BENCHMARKS = ("framers", "wasm", "hostile", "jt808", "rules", "storage", "spine")


def cpu_name() -> str:
    """Model of the processor, as the kernel names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def main(wanted: list[str]) -> None:
    """Run the benchmarks of these names, all by default."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the process fixture lives with the tests
    console = Console()
    packages = ", ".join(f"{name} {version(name)}" for name in ("wasmtime", "uvloop", "msgspec", "lupa"))
    console.print(f"{cpu_name()}; Python {platform.python_version()}; {packages}")
    for name in wanted or BENCHMARKS:
        started = time.perf_counter()
        table = Table(title=name, title_justify="left", min_width=100)
        for column, justify in (("what", "left"), ("figure", "right"), ("note", "left")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]  # rich narrows to its literals
        for row in importlib.import_module(f"bench.{name}").rows():
            table.add_row(*row)
        console.print(table)
        console.print(f"{time.perf_counter() - started:.0f} s\n")


if __name__ == "__main__":
    main(sys.argv[1:])
