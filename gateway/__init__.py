"""Flux Gateway: device traffic and medical images through sandboxed plugins and rules."""

__version__ = "0.1.0"
