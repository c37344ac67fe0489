"""The one exception for what a user can cause and mend."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in the input: configuration, data, weights, plugins, command line.

    The message is what the user sees, without traceback: one paragraph that says what is
    wrong, where, and the way out. Anything else that is raised counts as a bug and keeps its
    traceback.
    """


def refuse(problems: Sequence[str]) -> None:
    """Raise a UserError that lists all problems, if there are any."""
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError("\n".join([f"{len(problems)} problems:", *(f"- {p}" for p in problems)]))
