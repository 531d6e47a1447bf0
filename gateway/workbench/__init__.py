"""Authoring plugins: build, check, test, measure. Nothing here runs inside a gateway; knows no socket, no database."""
