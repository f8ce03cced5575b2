"""The command line: one small file per command, which parses, calls the library and prints."""

from csrecon.cli.app import main

__all__ = ["main"]
