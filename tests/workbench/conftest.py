from __future__ import annotations

from pathlib import Path

import pytest
from made_plugins import Made, require_toolchain

from gateway.workbench.build import build_plugin
from gateway.workbench.templates import Template, new_plugin


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Folder of a plugin made by `new` and built, one for each language."""
    root = tmp_path_factory.mktemp("made")
    folders: dict[str, Path] = {}

    def make(language: Template) -> Path:
        require_toolchain(language)
        if language not in folders:
            folder = new_plugin(language, f"sensor-{language}", root).folder
            build_plugin(folder)
            folders[language] = folder
        return folders[language]

    return make
