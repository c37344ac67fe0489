"""The precision of a run: what each part is stored in, was asked to compute in, and computes in.

    report = Report()
    report.add(models.cells())  # after apply_precision
    report.observe_compiled(cell)  # once something is compiled
    print(report.table())

`Report.problems` says where they differ.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher.training import device
from launcher.training.optimizers import HALF_PRECISION_PARAMETERS
from launcher.training.precision.cast import Asked, asked, dtype_of, name_of
from launcher.training.precision.graph import (
    EMULATED,
    KINDS,
    UNKNOWN,
    Operation,
    UnreadableGraphError,
    compiled_graph,
    operations,
)

_LABELS = {
    "matmul": "matmuls",
    "convolution": "convolutions",
    "attention": "attention",
    "normalisation": "norms",
    "output": "output",
}


@dataclass(frozen=True)
class _Place:
    """Where a parameter is: its part, its path in there, and what was asked of its cell."""

    part: str
    path: str
    trained: bool
    asked: Asked | None


@dataclass
class Part:
    """A part of the model.

    Attributes:
        stored: (number, bytes) of parameter elements by dtype.
        trained: the same of those that are trained.
        asked: what `apply_precision` asked of the part as a whole; None: nothing, as far as
            `launcher.training.precision` knows.
        emulated: whether bfloat16 is emulated in it.
        differentiated: whether gradients pass through it.
        operations: what was seen in compiled graphs.
    """

    stored: dict[str, tuple[int, int]]
    trained: dict[str, tuple[int, int]]
    asked: Asked | None
    emulated: bool
    differentiated: bool
    operations: list[tuple[Operation, _Place]] = field(default_factory=list)

    @property
    def asked_for(self) -> str:
        """The dtype to compute in."""
        if self.asked is None:
            return "not said"
        return EMULATED if self.emulated else self.asked.computation

    @property
    def share_trained(self) -> str:
        """How much of the part is trained."""
        count = _sum(self.trained, 0)
        if not count:
            return "frozen"
        return "all" if count == _sum(self.stored, 0) else _millions(count)

    def observed(self, kind: str) -> dict[str, int]:
        """How many operators of a kind compute in each dtype."""
        return dict(Counter(o.dtype for o, _ in self.operations if o.kind == kind).most_common())

    def shown(self, kind: str) -> str:
        """The same as text; with the numbers, where there are several dtypes."""
        counts = self.observed(kind)
        if len(counts) < 2:
            return "".join(counts) or "-"
        return ", ".join(f"{dtype} ({count})" for dtype, count in counts.items())


class Report:
    """What is known of the parts, in the order in which they were added.

    Attributes:
        parts: by name.
        notes: what could not be found out.
    """

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.notes: list[str] = []
        # By the parameters themselves: their names change when a part becomes one of a loss cell.
        self._placed: list[tuple[Any, _Place]] = []
        self._seen: set[tuple[int, str]] = set()

    # ---------------------------------------------------------------------------------------
    # Gathering
    # ---------------------------------------------------------------------------------------

    def add(self, cells: Mapping[str, Any], *, differentiated: bool = True) -> None:
        """Take in parts as `apply_precision` left them.

        Args:
            cells: by name.
            differentiated: whether gradients pass through them.
        """
        for name, cell in cells.items():
            parameters = list(cell.get_parameters())
            self.parts[name] = Part(
                stored=_sizes(parameters),
                trained=_sizes([p for p in parameters if p.requires_grad]),
                asked=asked(cell),
                emulated=device.is_emulated(cell),
                differentiated=differentiated,
            )
            self._placed += [
                (parameter, _Place(name, path, parameter.requires_grad, _asked_of(cell, path)))
                for path, parameter in cell.parameters_and_names()
            ]

    def release(self) -> None:
        """Let go of the parameters that were added, so that a stage's parts can leave memory."""
        self._placed.clear()

    def observe_compiled(self, cell: Any) -> None:
        """Take in what the graphs do that this very cell was compiled to, each once. One that
        cannot be looked into is noted.
        """
        try:
            for phase in sorted(cell.compile_cache):
                if (id(cell), phase) not in self._seen:
                    self._seen.add((id(cell), phase))
                    self.observe([compiled_graph(cell, phase)])
        except UnreadableGraphError as error:
            self.notes.append(
                f"a graph of {type(cell).__name__} could not be looked into, so what it computes "
                f"in is not known: {error}"
            )

    def observe(self, graphs: Iterable[bytes]) -> None:
        """Take in what graphs do that hold parts added before."""
        places = {parameter.name: place for parameter, place in self._placed}

        def part_of(parameter: str) -> str | None:
            return places[parameter].part if parameter in places else None

        emulated = device.emulates(dtype_of("bf16"))
        for graph in graphs:
            for operation in operations(graph, part_of, emulated=emulated):
                place = places.get(operation.parameter)
                if place is not None:
                    self.parts[place.part].operations.append((operation, place))

    def observations(self) -> list[dict[str, Any]]:
        """What was observed, for `adopt` in another process, as JSON can hold it."""
        return [
            {"part": name, "path": place.path, **dataclasses.asdict(operation)}
            for name, part in self.parts.items()
            for operation, place in part.operations
        ]

    def adopt(self, observations: Iterable[Mapping[str, Any]]) -> None:
        """Take in what another process observed in the same parts."""
        places = {(place.part, place.path): place for _, place in self._placed}
        for observation in observations:
            fields = dict(observation)
            place = places[fields.pop("part"), fields.pop("path")]
            self.parts[place.part].operations.append((Operation(**fields), place))

    # ---------------------------------------------------------------------------------------
    # Checking
    # ---------------------------------------------------------------------------------------

    def problems(self, *, loss_scaling: bool, optimizer: Any | None = None) -> list[str]:
        """What would train badly, or is not as it was asked for. Each is a sentence or two.

        Args:
            loss_scaling: whether the loss is scaled.
            optimizer: if it has an attribute `updates_in_float32` that is true, trained parameters
                may be stored in half precision. None: not made yet.
        """
        found = [*self._unscaled(loss_scaling), *self._left_behind()]
        if optimizer is not None and not getattr(optimizer, "updates_in_float32", False):
            found += self._half_precision_trained(type(optimizer).__name__)
        return [*found, *self._unlike_asked()]

    def _left_behind(self) -> Iterator[str]:
        for name, part in self.parts.items():
            left = [
                place.path
                for _, place in self._placed
                if place.part == name and place.trained and place.asked and not place.asked.trained
            ]
            if left:
                yield (
                    f"{len(left)} parameters of {name} are trained ({_listed(left)}), but "
                    f"apply_precision cast them as frozen ones, in {part.asked_for}. Set "
                    "requires_grad to False for them in configure_trainable, or cast what holds "
                    "them with launcher.training.precision.cast_trained in apply_precision."
                )

    def _half_precision_trained(self, optimizer: str) -> Iterator[str]:
        for name, part in self.parts.items():
            for dtype, (count, _) in part.trained.items():
                if dtype in ("float16", "bfloat16"):
                    yield (
                        f"{count:,} trained parameters of {name} are stored in {dtype}, and the "
                        f"optimizer {optimizer} updates parameters in their own dtype, in which "
                        "small updates are lost. Set optimizer.name to "
                        f"{' or '.join(HALF_PRECISION_PARAMETERS)}, or store them in float32 "
                        "(precision.trainable_params=fp32, or in your apply_precision). An "
                        "optimizer of your own that computes updates in float32 says so by an "
                        "attribute updates_in_float32 = True."
                    )

    def _unscaled(self, loss_scaling: bool) -> Iterator[str]:
        """float16 where gradients pass and the loss is not scaled."""
        if loss_scaling:
            return
        for name, part in self.parts.items():
            if not part.differentiated:
                continue
            asked_for = {part.asked.computation, part.asked.attention} if part.asked else set()
            if "float16" in asked_for | {operation.dtype for operation, _ in part.operations}:
                yield (
                    f"{name} computes in float16, and the loss is not scaled, so that small "
                    "gradients become zero in it. Set precision.mixed_precision=fp16, which "
                    "scales the loss, or let it compute in another dtype."
                )

    def _unlike_asked(self) -> Iterator[str]:
        for name in self.parts:
            for kind in KINDS:
                wrong: dict[tuple[str, str], dict[str, None]] = {}
                for operation, place in self.parts[name].operations:
                    expected = _expected(operation, place.asked, self.parts[name].emulated)
                    if operation.kind == kind and expected is not None:
                        cell = place.path.rpartition(".")[0] or name
                        cell = cell if operation.owns else f"what comes before {cell}"
                        wrong.setdefault((operation.dtype, expected), {})[cell] = None
                for (observed, expected), cells in wrong.items():
                    yield (
                        f"{_LABELS[kind]} of {name} should compute in {expected}, as "
                        f"apply_precision asked, but in the compiled graph they compute in "
                        f"{observed}: {_listed(cells)}. Cast these cells with "
                        "launcher.training.precision if that is meant, or find what else casts "
                        "them (to_float, set_dtype, a cast in their construct)."
                    )

    # ---------------------------------------------------------------------------------------
    # Showing
    # ---------------------------------------------------------------------------------------

    def table(self) -> str:
        """The report as text, a column a part."""
        rows: list[list[str]] = [["", *self.parts]]
        parts = self.parts.values()
        rows.append(["parameters", *(_dtypes(part.stored) for part in parts)])
        rows.append(["  number", *(_millions(_sum(part.stored, 0)) for part in parts)])
        rows.append(["  bytes", *(_megabytes(_sum(part.stored, 1)) for part in parts)])
        rows.append(["  trained", *(part.share_trained for part in parts)])
        rows.append(["computation", *(part.asked_for for part in parts)])
        for kind in KINDS:
            if any(part.observed(kind) for part in parts):
                rows.append([f"  {_LABELS[kind]}", *(part.shown(kind) for part in parts)])
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths)).rstrip() for row in rows]
        return "\n".join(lines + self.notes)

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        parts = {
            name: {
                "stored": _named(part.stored),
                "trained": _named(part.trained),
                "asked": dataclasses.asdict(part.asked) if part.asked else None,
                "emulated": part.emulated,
                "observed": {kind: part.observed(kind) for kind in KINDS if part.observed(kind)},
            }
            for name, part in self.parts.items()
        }
        return {"parts": parts, "notes": self.notes}


def _asked_of(cell: Any, path: str) -> Asked | None:
    """What was asked of the innermost cell on the way to a parameter."""
    found = asked(cell)
    for name in path.split(".")[:-1]:
        cell = cell._cells.get(name)
        if cell is None:  # a parameter that is not a direct one of its cell, as in a ParameterTuple
            break
        found = asked(cell) or found
    return found


def _expected(operation: Operation, asked: Asked | None, emulated: bool) -> str | None:
    """The dtype that an operator should have computed in, if it did not."""
    if asked is None or operation.dtype == UNKNOWN:
        return None
    expected = asked.attention if operation.kind == "attention" else asked.computation
    accepted = {expected}
    if expected == "bfloat16":
        accepted.add(EMULATED)
    # Models widen their norms, which harms nothing. What `launcher.cpu.bf16` does not round between
    # two layers is wider, too.
    if operation.kind == "normalisation" or (operation.kind == "attention" and emulated):
        accepted.add("float32")
    return None if operation.dtype in accepted else expected


def _sizes(parameters: Iterable[Any]) -> dict[str, tuple[int, int]]:
    sizes: dict[str, tuple[int, int]] = {}
    for parameter in parameters:
        dtype = name_of(parameter.dtype)
        count, size = sizes.get(dtype, (0, 0))
        sizes[dtype] = count + parameter.size, size + parameter.nbytes
    return sizes


def _named(sizes: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
    return {dtype: {"parameters": n, "bytes": size} for dtype, (n, size) in sizes.items()}


def _sum(sizes: Mapping[str, tuple[int, int]], index: int) -> int:
    return sum(size[index] for size in sizes.values())


def _dtypes(sizes: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(sizes)


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
