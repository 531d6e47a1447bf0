"""Docs that can be checked are checked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import fields

from gateway.rules.config import RulesConfig
from gateway.rules.sandbox import RuleSandbox
from gateway.wasm.manifest import Build, Caps, Limits, Manifest, Match, Schema, State, Vector

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/**/*.md")])


def test_the_page_of_the_configuration_is_what_the_types_say() -> None:
    outcome = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_the_readme_rule_loads_in_the_sandbox() -> None:
    (script,) = re.findall(r"```lua\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    error, _ = RuleSandbox(RulesConfig()).load(script.encode(), "readme")
    assert error == ""


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs/adr").glob("[0-9]*.md"))
    assert numbers == list(range(len(numbers)))


def test_every_module_of_the_gateway_says_what_it_owns() -> None:
    silent = [
        path for path in ROOT.glob("gateway/**/*.py") if not path.read_text().lstrip().startswith(('"""', 'r"""'))
    ]
    assert silent == []


def test_no_file_of_the_gateway_is_longer_than_600_lines() -> None:
    long = [path for path in ROOT.glob("gateway/**/*.py") if len(path.read_text().splitlines()) > 600]
    assert long == []


def test_every_key_of_a_manifest_is_on_the_page_of_plugins() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    keys = {
        field.name for kind in (Manifest, Match, Limits, Caps, Schema, State, Build, Vector) for field in fields(kind)
    }
    assert [key for key in sorted(keys) if f"`{key}" not in page and f"[{key}" not in page] == []
