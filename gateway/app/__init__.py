"""The composition root: the one place that knows every room, wires them and starts and stops them in order."""
