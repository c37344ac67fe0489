"""The contract between a training launcher and its recipes.

`specs.py` lists every hook in the order in which a run calls them; `types.py` holds the
values that pass through them. A recipe or a variant is a module of plain functions marked
with `hookimpl`:

    from hooks import hookimpl

    @hookimpl
    def apply_precision(config, models):
        ...
        return models

`launcher hooks --recipe NAME` shows every hook with the function that answers it.
"""

import pluggy

PROJECT_NAME = "launcher"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)

__all__ = ["PROJECT_NAME", "hookimpl", "hookspec"]
