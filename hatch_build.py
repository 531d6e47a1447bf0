"""Puts the shipped plugins, SDKs and templates into the wheel; an editable install reads them from the checkout."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShippedPlugins(BuildHookInterface):  # type: ignore[type-arg]  # hatchling publishes no parameters for it
    """Adds `plugins/`, with the modules that are built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the folder and where it goes."""
        if version != "editable":
            build_data["force_include"]["plugins"] = "gateway/shipped/plugins"
