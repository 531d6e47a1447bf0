"""Flux Gateway: device traffic and medical images through sandboxed plugins and rules."""

from importlib.metadata import version

__version__ = version("flux-gateway")
