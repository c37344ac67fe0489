"""Keep the frameworks' noise off a normal run: known messages, by source and wording.

Nothing is redirected and no stream is replaced. What is not in the lists below is shown: other
warnings of the frameworks, their errors, and all that plugins warn of or print. `-v` shows
everything.

    quiet.install(verbose=False)    # before mindspore, mindone, transformers, datasets

How the page of `Exception ignored in: <function Cell.__del__ ...>` at exit is avoided. At
interpreter exit the modules' globals become None before the last cells are collected, and
`Cell.__del__` needs `Cell`. Its bookkeeping is of no use any more by then, so an exit handler
takes the method away. Two other ways were tried and work too. `sys.unraisablehook` could drop
these reports, but would hide the same failure during the run as well. `os._exit` at the end of
`main` skips the interpreter's teardown, and with it the temporary files, threads and destructors
of whatever else a plugin uses.
"""

from __future__ import annotations

import atexit
import builtins
import importlib.abc
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: Read by the libraries when they are imported. A value that the user has set stays.
_ENVIRONMENT = {
    # MindSpore, Python and C++: errors only. Its warnings are about its own deprecations,
    # parameters that take part in nothing, and the like.
    "GLOG_v": "3",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}

#: Logger and the beginning of a message that is false or beside the point here.
_MESSAGES = (
    # There is no torch here, and there need not be.
    ("transformers", "None of PyTorch, TensorFlow >= 2.0, or Flax have been found"),
    # Advice to whoever makes a tokenizer; FLUX.1's own files call it up.
    ("transformers.models.t5.tokenization_t5", "You are using the default legacy behaviour"),
    ("transformers.models.t5.tokenization_t5_fast", "You set `add_prefix_space`"),
)

#: Deprecations within these packages concern their authors. One that is addressed to a plugin
#: (by `stacklevel`) counts as the plugin's and is shown.
_PACKAGES = ("mindspore", "mindone", "mindcv", "transformers", "datasets", "huggingface_hub")
_DEPRECATIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)

#: Module and the beginning of what it prints at import, once per model it has no sample of.
_PRINTS = (("transformers.utils.auto_docstring", "🚨 Config not found for"),)


def install(verbose: bool) -> None:
    """Set up what a run may show. Call once per process, before the frameworks are imported.

    Args:
        verbose: show everything.
    """
    # Not noise alone: the tokenizers' threads and forked processes do not go together.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if verbose:
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name, beginning in _MESSAGES:
        logging.getLogger(name).addFilter(_without(beginning))
    if not sys.warnoptions:  # python -W decides otherwise
        for package in _PACKAGES:
            for category in _DEPRECATIONS:
                warnings.filterwarnings("ignore", "", category, rf"{package}(\.|$)")
    for name, beginning in _PRINTS:
        _after_import(name, _print_without(beginning))
    # Handlers run in reverse order: this one comes after those of the frameworks.
    atexit.register(_forget_cell_destructor)


def _without(beginning: str) -> Callable[[logging.LogRecord], bool]:
    """A logging filter that drops messages that begin like this."""

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    return keep


def _print_without(beginning: str) -> Callable[[ModuleType], None]:
    """Give a module a `print` of its own that drops what begins like this."""

    def change(module: ModuleType) -> None:
        def print(*values: object, **options: Any) -> None:
            if not (values and str(values[0]).startswith(beginning)):
                builtins.print(*values, **options)

        module.print = print  # type: ignore[attr-defined]

    return change


def _forget_cell_destructor() -> None:
    module = sys.modules.get("mindspore.nn.cell")
    if module is not None and "__del__" in vars(module.Cell):
        del module.Cell.__del__


def _after_import(name: str, change: Callable[[ModuleType], None]) -> None:
    """Change a module once it is imported; at once if it is there already."""
    if name in sys.modules:
        change(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, change))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module, by asking the other finders, and changes it after it has run."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._change = change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                self._change(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
