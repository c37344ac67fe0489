"""The options that say where encodings are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.training import atomic
from launcher.training.cache.place import default_root
from launcher.training.options import option

_RATES = "rates.json"


@dataclass(frozen=True)
class CacheOptions:
    """To be inherited by the section of a recipe that encodes its data set, `data` by custom."""

    cache_dir: str | None = option(
        None,
        help="folder for what is encoded once, shared between runs; `datasets` keeps its downloads "
        "there, too. null: ~/.cache/launcher, and where `datasets` keeps them by itself",
        resume="free",
        path="local",
    )
    verify: bool = option(
        True,
        help="compare each encoding with its checksum when it is read; mend what is damaged",
        resume="free",
    )

    @property
    def cache_root(self) -> Path:
        """The folder that holds everything else."""
        if self.cache_dir is None:
            return default_root()
        return Path(self.cache_dir).expanduser()

    @property
    def encodings_dir(self) -> Path:
        """Where encodings are kept; see `DiskCache`."""
        return self.cache_root / "encodings"

    @property
    def digests_dir(self) -> Path:
        """Where the digests of files are remembered; see `launcher.training.digests`."""
        return self.cache_root / "digests"

    def write_rates(self, rates: Mapping[str, Mapping[str, object]]) -> None:
        """Remember how fast encoding went, for estimates; nothing depends on it.

        Args:
            rates: by the inputs' kind; `entries`, `seconds`, the `device`, and `about` as in
                `DiskCache.fill`.
        """
        known = self.rates() | {kind: dict(rate) for kind, rate in rates.items()}
        with suppress(OSError):
            atomic.write_text(self.cache_root / _RATES, json.dumps(known))

    def rates(self) -> dict[str, dict[str, object]]:
        """What `write_rates` wrote last; empty if that is nothing."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.cache_root / _RATES).read_text(encoding="utf-8")))
        return {}
