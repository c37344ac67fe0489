"""The first stage of a run: what does not change during training is encoded once, and kept.

MindSpore does not give memory back that a model has used. So the encoders live in a process of
their own, which fills the cache and ends; where everything is in the cache already, no process is
started and no encoder's weights are read.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hooks.types import Cache, CollateFn, Config, Dataset, Encodings, Models
from launcher import child
from launcher.console import Console
from launcher.parts import prepare_models
from launcher.ticker import duration
from launcher.training import device_memory
from launcher.training.errors import UserError, refuse

if TYPE_CHECKING:
    import numpy as np

    from launcher.plugins import Plugins
    from launcher.training.cache.options import CacheOptions
    from launcher.training.precision.report import Report


_SMALLER = (
    "precision.text_encoders=half halves what text encoders take; `launcher plan` with the same "
    "arguments shows how much that is."
)


@dataclass
class Encoded:
    """What the stage leaves to the next one.

    Attributes:
        encodings: the keys, from the recipe.
        cache: holds them all.
        report: what the encoders are kept in and compute in.
        kept: the encoders, where they are to stay in memory.
    """

    encodings: Encodings
    cache: Any
    report: Report
    kept: Models | None = None


class EncodingStage:
    """Makes what is missing in the cache.

    Args:
        networks: the parts of the `train` stage, cast, without values.
        arguments: those of the command line, with which `launcher precompute` is run in a process
            of its own; None: the work is done in this one.
        in_memory: keep the encodings in memory, in this process, whatever the options say.
    """

    def __init__(
        self,
        plugins: Plugins,
        config: Config,
        networks: Models,
        dataset: Dataset,
        console: Console,
        *,
        arguments: Sequence[str] | None = None,
        in_memory: bool = False,
    ) -> None:
        self._hook = plugins.hook
        self._has_encodings = not plugins.leaves_to_launcher("plan_encodings")
        self._config = config
        self._networks = networks
        self._dataset = dataset
        self._console = console
        self._options = None if in_memory else cache_options(config)
        # What is kept in memory has to be made in this process.
        self._arguments = arguments if self._options is not None else None

    def run(self, check: Callable[[Encodings], object] = lambda encodings: None) -> Encoded:
        """Fill the cache, unless nothing is missing.

        Args:
            check: told what is needed before anything is encoded; may raise.

        Raises:
            UserError: the cache cannot be used, an encoding is of no use, or the process that was
                to make it was killed.
            AlreadyReported: that process failed.
        """
        from launcher.training.cache import DiskCache
        from launcher.training.precision.report import Report

        report, models = Report(), Models()
        if self._has_encodings:
            models = prepare_models(self._config, self._hook, "precompute")
            report.add(models.cells(), differentiated=False)
        encodings = self._hook.plan_encodings(
            config=self._config, models=models, networks=self._networks, dataset=self._dataset
        )
        check(encodings)
        encoded = Encoded(encodings, self._open_cache(), report)
        keys = encodings.keys()
        missing = int(encoded.cache.missing(keys).sum())
        if missing:
            encoded.cache.require_writable()
            observed = self._make(models, missing, encoded)
            report.adopt(observed)
        elif self._has_encodings:
            self._console.headline(f"all {len(keys)} encodings are in {self._place()}")
        idle = [name for name, part in report.parts.items() if not part.operations]
        if idle and self._config.runtime.mode == "graph":
            report.notes.append(
                f"{', '.join(idle)}: all that they encode was there already; they did not run, and "
                "what they compute in was seen when they did"
            )
        left = int(encoded.cache.missing(keys).sum())
        if left:
            raise UserError(
                f"{left} of {len(keys)} encodings are missing in {self._place()} after everything "
                "was encoded. Start again if a file changed meanwhile, or another run pruned the "
                "cache. If neither is so, the recipe's precompute does not make what its "
                "plan_encodings names."
            )
        if isinstance(encoded.cache, DiskCache):
            encoded.cache.touch(keys)  # in use, for `launcher cache prune`
        # Nothing holds the encoders any more, unless they are kept.
        report.release()
        del models
        gc.collect()
        return encoded

    def build_collate_fn(self, models: Models, encoded: Encoded) -> CollateFn:
        """What the recipe makes batches with, of what was encoded.

        Args:
            models: the parts of the `train` stage.
        """
        collate: CollateFn = self._hook.build_collate_fn(
            config=self._config,
            models=models,
            dataset=self._dataset,
            encodings=encoded.encodings,
            cache=encoded.cache,
        )
        return collate

    def mend(self, encoded: Encoded, key: bytes) -> None:
        """Make a damaged encoding anew."""
        try:
            encoded.cache.discard([key])
        except UserError as error:
            raise UserError(f"an encoding is damaged and cannot be made anew: {error}") from error
        models = encoded.kept
        if models is None and self._arguments is None:
            models = prepare_models(self._config, self._hook, "precompute")
        self._make(models, 1, encoded)

    def _open_cache(self) -> Any:
        from launcher.training.cache import DiskCache, MemoryCache

        if self._options is None:
            return MemoryCache()
        return DiskCache(self._options.encodings_dir, verify=self._options.verify)

    def _place(self) -> str:
        return "memory" if self._options is None else str(self._options.encodings_dir)

    def _make(self, models: Models | None, missing: int, encoded: Encoded) -> list[Any]:
        """Encode what is missing. Returns what a child observed of the encoders."""
        if self._arguments is None:
            assert models is not None
            encoded.kept = self._encode(models, missing, encoded)
            return []
        told = child.run("precompute", self._arguments, *child_task(self._config))
        encoded.cache.refresh()
        observed: list[Any] = told.get("observed", [])
        return observed

    def _encode(self, models: Models, missing: int, encoded: Encoded) -> Models | None:
        """In this process. Returns the models if they are to be kept."""
        from launcher.training import weights
        from launcher.training.precision import shrink

        console, config = self._console, self._config
        with console.busy("loading the encoders", "loaded the encoders"):
            weights.load(models.cells().values())
        start = time.monotonic()
        cache = _Watched(encoded.cache, console, lambda: self._observe(models, encoded.report))
        with device_memory.needed_for("encoding the data set", _SMALLER):
            self._hook.precompute(
                config=config,
                models=models,
                dataset=self._dataset,
                encodings=encoded.encodings,
                cache=cache,
            )
        inputs = f"{missing} input{'s' if missing > 1 else ''}"
        console.headline(f"encoded {inputs} in {duration(time.monotonic() - start)}")
        if self._options is not None:
            self._options.write_rates(cache.rates)
        way = config.precision.release_text_encoders
        if way == "cast":
            for cell in models.cells().values():
                shrink(cell)
        return models if way == "keep" else None

    def _observe(self, models: Models, report: Report) -> None:
        """Look at what was compiled since the last time, and refuse what is not as asked for."""
        for model in models.cells().values():
            for _, cell in model.cells_and_names():  # the VAE's encoder is called by itself
                report.observe_compiled(cell)
        refuse(report.problems(loss_scaling=self._config.precision.loss_scaling))


def child_task(config: Config) -> tuple[str, str]:
    """What the process does that encodes, and what to do if it is killed; see `child.run`."""
    options = cache_options(config)
    place = "the cache" if options is None else options.encodings_dir
    return (
        "encodes the data set",
        f"What it had finished is in {place}: the same command goes on from there.",
    )


def cache_options(config: Config) -> CacheOptions | None:
    """The section that says where encodings are kept; None: the recipe has no such options."""
    from launcher.training.cache.options import CacheOptions

    return next((s for s in config.values() if isinstance(s, CacheOptions)), None)


class _Watched:
    """A cache that shows how its filling goes on, and has the first batch of each kind looked at
    before anything is kept of it.

    Attributes:
        rates: of the last filling by kind, without its first batch, which compiles; see
            `CacheOptions.write_rates`.
    """

    def __init__(self, cache: Cache, console: Console, look: Callable[[], None]) -> None:
        self._cache = cache
        self._console = console
        self._look = look
        self.rates: dict[str, dict[str, object]] = {}

    def missing(self, keys: np.ndarray) -> np.ndarray:
        return self._cache.missing(keys)

    def get(self, key: bytes) -> Mapping[str, np.ndarray]:
        return self._cache.get(key)

    def fill(
        self,
        kind: str,
        keys: np.ndarray,
        encode: Callable[[Sequence[int]], Mapping[str, np.ndarray]],
        describe: Callable[[int], str],
        **options: Any,
    ) -> None:
        from launcher.training import device

        total = int(self._cache.missing(keys).sum())
        if not total:
            return
        parent = child.parent()
        done, started, first = 0, 0.0, 0
        with self._console.progress(total, what="encoding", unit=kind) as progress:

            def watched(positions: Sequence[int]) -> Mapping[str, np.ndarray]:
                nonlocal done, started, first
                if parent is not None:
                    parent.tell(at=describe(positions[0]))
                if not done:
                    with self._console.busy(
                        f"encoding the first {kind}s", f"encoded the first {kind}s", "it compiles"
                    ):
                        arrays = encode(positions)
                    self._look()
                    first, started = len(set(positions)), time.monotonic()
                else:
                    arrays = encode(positions)
                done += len(set(positions))
                progress.update(done)
                return arrays

            self._cache.fill(kind, keys, watched, describe, **options)
            progress.update(total)  # other processes may have made some of them
            if done > first:
                self.rates[kind] = {
                    "entries": done - first,
                    "seconds": time.monotonic() - started,
                    "device": device.chosen(),
                    "about": dict(options.get("about") or {}),
                }
