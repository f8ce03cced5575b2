"""The version of csrecon, importable from every package."""

__version__ = "0.2.0"
