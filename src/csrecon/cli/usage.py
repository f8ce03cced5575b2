"""Errors of options and arguments that Typer finds: one line, like every other error."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from csrecon.cli.terminal import fail

# Typer has Click's exceptions inside from 0.16 on, and exports this one under both.
_Refusal: Any = typer.BadParameter.__base__


def _empty(value: Any) -> bool:
    """Whether a text, or one of several, is empty."""
    return any(map(_empty, value)) if isinstance(value, list | tuple) else value == ""


class Command(TyperCommand):
    """A command that refuses an empty text: as a path it would mean the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            typer.BadParameter: one of them is empty.
        """
        if not ctx.resilient_parsing:
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            parameters: list[Any] = list(self.get_params(ctx))
            for parameter in parameters:
                if _empty(given.get(parameter.name)):
                    raise typer.BadParameter(
                        "it is empty; give a value, or leave it out.", ctx, parameter
                    )
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """Commands whose usage errors are printed by csrecon."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command; exit unless the option `standalone_mode` is false."""
        alone = options.get("standalone_mode", True)
        options["standalone_mode"] = False
        if not alone:
            return super().main(*args, **options)
        try:
            code = super().main(*args, **options)
        except _Refusal as error:
            message = error.format_message().strip()
            if message:  # without any arguments the help is shown instead
                fail(f"{message.removesuffix('.')}. See `{error.ctx.command_path} --help`.")
            code = error.exit_code
        raise SystemExit(code)
