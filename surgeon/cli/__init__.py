"""The command line: arguments in, tables and progress out. One command a file.

Only this package prints. Results go to stdout, as tables or with ``--json`` as one JSON object;
progress, warnings and errors go to stderr. Nothing here imports torch: what a command needs is
imported when it runs, so that ``surgeon --help`` stays quick.
"""

from surgeon.cli.app import app

__all__ = ["main"]


def main() -> None:
    """Entry point of the ``surgeon`` script; ends the process with the exit status."""
    app()
