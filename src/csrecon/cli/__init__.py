"""The command line: one small file per command, each of which parses, calls, and prints."""

from csrecon.cli.app import main

__all__ = ["main"]
