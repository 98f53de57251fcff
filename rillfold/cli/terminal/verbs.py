"""Commands below a command; one that is mistyped is told with the one that is meant."""

import click

from schemas.near import meant


class Verbs(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if self.get_command(ctx, args[0]) is None:
                error.message += meant(args[0], self.list_commands(ctx))
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A sentence each, to its end, however many lines that takes."""
        verbs = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        told = [(name, verb.get_short_help_str(1_000)) for name, verb in verbs if verb is not None]
        with formatter.section("Commands"):
            formatter.write_dl(told)
