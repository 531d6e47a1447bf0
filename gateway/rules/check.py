"""Looks over script files without running them on anything: each is loaded in a sandbox of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.rules.config import RulesConfig, ScenesConfig
from gateway.rules.sandbox import RuleSandbox, SceneSandbox
from gateway.rules.scripts import ScriptFolder


def check_rules(config: RulesConfig) -> Iterator[tuple[str, str]]:
    """Name and error (empty where there is none) of every rule file."""
    for file in _files(config):
        yield file[0], file[2] or RuleSandbox(config).load(file[1], file[0])[0]


def check_scenes(config: ScenesConfig) -> Iterator[tuple[str, str]]:
    """Name and error (empty where there is none) of every scene file."""
    for file in _files(config):
        yield file[0], file[2] or SceneSandbox(config).load(file[1], file[0])[0]


def _files(config: RulesConfig | ScenesConfig) -> list[tuple[str, bytes, str]]:
    folder = ScriptFolder(Path(config.directory), config.files, config.limits.source_bytes)
    return [(file.name, file.source, file.problem) for file in folder.look()[0]]
