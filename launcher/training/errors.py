"""The one exception for what a user can cause and mend."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the input: configuration, data, weights, plugins, command line.

    The message is what the user sees, without traceback: one paragraph that says what is
    wrong, where, and the way out. Anything else that is raised counts as a bug and keeps its
    traceback.
    """
