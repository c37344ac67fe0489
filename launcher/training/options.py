"""Options of a configuration section: dataclass fields with help and bounds.

    @dataclass(frozen=True)
    class TrainSection:
        learning_rate: float = option(5e-6, ge=0, help="rate after warm-up")

        def problems(self) -> Iterable[str]:     # optional: checks across options
            ...

A section's `asks: ClassVar[tuple[str, ...]]`, also optional, names options that a starting file
(`launcher cp`) asks for although they have a default: of several options of which a run needs
one, the usual one.

The annotation says what an option takes: bool, int, float, str, Literal, `X | None`, list[X],
tuple[X, ...], and unions of these. An int takes `1e3`, which is whole, but neither `3.7` nor
`true`; a float takes `3` and `1e-5`, but neither `inf` nor `nan`. An option without default must
be given.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

MISSING = dataclasses.MISSING


def option(
    default: Any = MISSING,
    *,
    help: str,
    default_factory: Any = MISSING,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    resume: Literal["free", "content", "continues", "fixed"] = "fixed",
    path: Literal["local", "or_hub"] | None = None,
) -> Any:
    """A dataclass field that is an option.

    Args:
        default, default_factory: as for `dataclasses.field`; neither: the option is required.
        help: what it does, in a phrase.
        ge, gt, le, lt: bounds of a number, or of every number in a list.
        resume: whether it may change between a checkpoint and the run that goes on from it. free:
            it has no influence on the weights; content: it names something that may have another
            name now, if it is the same; continues: it has an influence, and the run goes on with
            the new value; fixed: what was trained so far would be of no use.
        path: local: a file or folder, or a list of them, which what is shared of a run names by
            its last part only; or_hub: the same, or OWNER/NAME on the Hugging Face Hub.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {
        "help": help,
        "bounds": {k: v for k, v in bounds.items() if v is not None},
        "resume": resume,
        "path": path,
    }
    return dataclasses.field(default=default, default_factory=default_factory, metadata=metadata)
