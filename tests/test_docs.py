"""Docs that can be checked are checked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import fields

from gateway.framing.spec import FramingSpec
from gateway.rules.config import RulesConfig
from gateway.rules.sandbox import RuleSandbox
from gateway.wasm.abi import IMPORTS, SIGNATURES
from gateway.wasm.codec import CODE_TEXTS
from gateway.wasm.manifest import Build, Capability, Caps, Limits, Manifest, Match, Schema, State, Vector

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


@pytest.mark.parametrize("spec", get_args(FramingSpec), ids=lambda spec: spec.__struct_config__.tag)
def test_every_framing_is_on_the_page_of_plugins_with_its_keys(spec: type[FramingSpec]) -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    _, _, section = page.partition("### Framings")
    (row,) = re.findall(rf"^\| `{spec.__struct_config__.tag}` \|.*", section, re.MULTILINE)
    assert [field.name for field in fields(spec) if f"`{field.name}`" not in row] == ["max_frame_bytes"]


def test_the_specification_of_the_abi_has_every_export_import_capability_and_code() -> None:
    page = (ROOT / "docs" / "plugin-abi.md").read_text()
    found = re.findall(r"^\| `(\w+)\((.*?)\)(?: -> (\w+))?` \| (`\w+`)?", page, re.MULTILINE)
    shapes = {name: (len(given.split(",")) if given else 0, result) for name, given, result, _ in found}
    offered = {name: (params, results) for name, (_, params, results) in IMPORTS.items()}
    assert shapes == {
        name: (len(params), results[0] if results else "")
        for name, (params, results) in {**SIGNATURES, **offered}.items()
    }
    assert {name: cap.strip("`") for name, _, _, cap in found if cap} == {
        name: capability for name, (capability, _, _) in IMPORTS.items()
    }
    assert [cap for cap in get_args(Capability) if f"`{cap}`" not in page and f"caps.{cap}" not in page] == []
    codes = dict(re.findall(r"^\| (\d+) \| (\w+)", page, re.MULTILINE))
    assert [code for code, text in CODE_TEXTS.items() if code > 0 and not codes[str(code)].startswith(text[:3])] == []
