"""Listeners own sockets, TLS, limits and back-pressure. They know frames, not what frames mean."""
