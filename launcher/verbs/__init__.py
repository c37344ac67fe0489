"""The verbs of the command line: one file, one function, one name. They import nothing heavy."""

from __future__ import annotations

from collections.abc import Callable

from launcher.verbs.cache import cache
from launcher.verbs.config import config
from launcher.verbs.cp import cp
from launcher.verbs.data import data
from launcher.verbs.hooks import hooks
from launcher.verbs.plan import plan
from launcher.verbs.precision import precision
from launcher.verbs.precompute import precompute
from launcher.verbs.push import push
from launcher.verbs.recipes import recipes
from launcher.verbs.report import report
from launcher.verbs.run import run
from launcher.verbs.sample import sample

VERBS: dict[str, Callable[[list[str]], None]] = {
    "run": run,
    "precompute": precompute,
    "recipes": recipes,
    "hooks": hooks,
    "config": config,
    "precision": precision,
    "plan": plan,
    "data": data,
    "cache": cache,
    "sample": sample,
    "push": push,
    "report": report,
    "cp": cp,
}
