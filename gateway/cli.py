"""The `gateway` command."""


def main() -> None:
    """Run the command line."""
