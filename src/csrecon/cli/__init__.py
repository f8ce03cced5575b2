"""The command line: one small file per command, which parses, calls the library and prints."""

from csrecon.cli import signals


def main() -> None:
    """Run the command line; exit with one of the codes of csrecon.errors, or 128 + a signal."""
    try:
        with signals.unwinding():
            from csrecon.cli.app import run  # a signal during this import is handled

            run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except signals.Terminated as end:
        raise SystemExit(128 + end.number) from None


__all__ = ["main"]
