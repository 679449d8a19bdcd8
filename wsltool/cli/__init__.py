"""The command line: typer and rich, one thin file a command."""

from __future__ import annotations

from wsltool.cli.app import app

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    from wsltool.cli import commands  # noqa: F401  (declares every command)

    app()
