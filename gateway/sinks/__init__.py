"""Northbound sinks: what was stored goes on to other systems. Each is an extension's; the shipped ones lie here."""
