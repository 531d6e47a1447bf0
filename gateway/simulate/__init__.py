"""Simulated devices that speak real protocols over real sockets. Knows the framers, not the gateway's other rooms."""
