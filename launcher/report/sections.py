"""The parts of a report besides charts and images: tables and lists."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.provenance import DECISIVE
from launcher.report import figures, formats
from launcher.report.colours import key
from launcher.report.files import checkpoints, written
from launcher.report.html import Child, Markup, folded, join, table, tag
from launcher.report.run import Run
from launcher.resume import flat
from launcher.training.precision.graph import EMULATED

#: Kinds of operators in precision.json, and what they are called in `launcher precision`.
_KINDS = {
    "matmul": "matmuls",
    "convolution": "convolutions",
    "attention": "attention",
    "normalisation": "norms",
    "output": "output",
}


def summary(runs: list[Run], now: float) -> Markup:
    """The figures that a run has come to; of several, side by side.

    Args:
        now: seconds since 1970.
    """
    found = [figures.summary(run, now) for run in runs]
    names = list(dict.fromkeys(name for one in found for name in one))
    if len(runs) == 1:
        tiles = [tag("div", tag("dt", name), tag("dd", found[0][name])) for name in names]
        return tag("section", tag("h2", "Figures"), tag("dl", tiles, class_="tiles"), id="figures")
    rows = [[name, *(one.get(name, "–") for one in found)] for name in names]
    heads = ["", *(key(run.label, number) for number, run in enumerate(runs))]
    shown = table("final figures, a column a run", heads, rows, numeric=True)
    return tag("section", tag("h2", "Figures"), shown, id="figures")


def configuration(runs: list[Run]) -> Markup:
    """What differs between the runs, and each one's options."""
    shown: list[Child] = []
    if len(runs) > 1:
        different = figures.differences([run.config for run in runs])
        shown.append(tag("h3", "Differences"))
        if different:
            rows = [[n, *map(figures.written, values)] for n, values in different.items()]
            heads = ["option", *(key(run.label, number) for number, run in enumerate(runs))]
            shown.append(table("options that differ between the runs", heads, rows))
        else:
            shown.append(tag("p", "All options are the same.", class_="note"))
    for run in runs:
        options = flat(run.config)
        if not options:
            shown.append(tag("p", f"{run.label} has no config.yaml.", class_="note"))
            continue
        rows = [[name, figures.written(value)] for name, value in options.items()]
        body = table(f"options of {run.label}", ["option", "value"], rows)
        title = f"All {len(options)} options" + (f" of {run.label}" if len(runs) > 1 else "")
        shown.append(folded(title, body))
    return tag("section", tag("h2", "Configuration"), shown, id="configuration")


def precision(runs: list[Run]) -> Markup | None:
    """What each part is kept in and computes in; None if no run has it."""
    shown = []
    for run in runs:
        parts = (run.precision or {}).get("parts")
        if not parts:
            continue
        rows: list[list[Child]] = [
            ["stored in", *(_dtypes(part.get("stored")) for part in parts.values())],
            ["parameters", *(_total(part, "parameters") for part in parts.values())],
            ["size", *(_total(part, "bytes") for part in parts.values())],
            ["trained", *(_share_trained(part) for part in parts.values())],
            ["asked for", *(_asked(part) for part in parts.values())],
        ]
        seen = {kind for part in parts.values() for kind in part.get("observed", {})}
        kinds = [*(kind for kind in _KINDS if kind in seen), *sorted(seen - _KINDS.keys())]
        rows += [
            [
                _KINDS.get(k, k),
                *(_counted(p.get("observed", {}).get(k)) for p in parts.values()),
            ]
            for k in kinds
        ]
        if len(runs) > 1:
            shown.append(tag("h3", run.label))
        shown.append(table(f"precision of each part of {run.label}", ["", *parts], rows))
        shown += [tag("p", note, class_="note") for note in (run.precision or {}).get("notes", [])]
    if not shown:
        return None
    return tag("section", tag("h2", "Precision"), shown, id="precision")


def _dtypes(sizes: Any) -> str:
    return ", ".join(sizes or {}) or "–"


def _total(part: Mapping[str, Any], what: str) -> str:
    total = sum(size.get(what, 0) for size in part.get("stored", {}).values())
    return formats.size(total) if what == "bytes" else _parameters(total)


def _parameters(count: int) -> str:
    """`11,900 M`, `40.2 k`."""
    each, unit = (1e6, "M") if count >= 1e6 else (1e3, "k")
    return f"{formats.number(count / each)} {unit}"


def _share_trained(part: Mapping[str, Any]) -> str:
    count, trained = (
        sum(size.get("parameters", 0) for size in part.get(kind, {}).values())
        for kind in ("stored", "trained")
    )
    if not trained:
        return "frozen"
    return "all" if trained >= count else formats.share(trained / count)


def _asked(part: Mapping[str, Any]) -> str:
    asked = part.get("asked") or {}
    computation, attention = asked.get("computation"), asked.get("attention")
    if not computation:
        return "not said"
    if part.get("emulated"):
        return EMULATED
    return str(computation) if attention == computation else f"{computation}, attention {attention}"


def _counted(dtypes: Any) -> str:
    if not dtypes:
        return "–"
    if len(dtypes) == 1:
        return str(*dtypes)
    return ", ".join(f"{dtype} ({count})" for dtype, count in dtypes.items())


def provenance(runs: list[Run]) -> Markup | None:
    """What each run ran with, and where it was continued."""
    shown = []
    for run in runs:
        if not run.provenance and not run.resumes:
            continue
        found: list[Child] = []
        if run.provenance:
            found += [_parts(run), _details(run.provenance[-1])]
        if run.resumes:
            found.append(_resumes(run))
        shown.append(folded(run.label, found) if len(runs) > 1 else join(found))
    if not shown:
        return None
    return tag("section", tag("h2", "Provenance"), shown, id="provenance")


def _parts(run: Run) -> Markup:
    """A table with a column for each time that the run was started."""
    rows: list[tuple[str, list[Child]]] = [
        ("started", [_given(about, "started") for about in run.provenance]),
        (
            "command line",
            [
                tag("code", shlex.join(["launcher", *about.get("command_line", [])]))
                for about in run.provenance
            ],
        ),
    ]
    for name in ("recipe", "device", "world_size", "seed"):
        rows.append((name.replace("_", " "), [_given(about, name) for about in run.provenance]))
    rows.append(("Python", [_of(about, "python", "version") for about in run.provenance]))
    rows.append(
        (
            "machine",
            [
                f"{_of(about, 'platform', 'system')} {_of(about, 'platform', 'release')}, "
                f"{_of(about, 'platform', 'machine')}, {_of(about, 'platform', 'cpus')} CPUs"
                for about in run.provenance
            ],
        )
    )
    for name in DECISIVE:  # the others are shown on a click
        versions = [_of(about, "packages", name) for about in run.provenance]
        if any(version != "–" for version in versions):
            rows.append((name, list(versions)))
    count = len(run.provenance)
    heads = ["", *(f"part {n}" if count > 1 else "" for n in range(1, count + 1))]
    return table(f"what {run.label} ran with", heads, [[n, *values] for n, values in rows])


def _given(about: Mapping[str, Any], name: str) -> str:
    return str(about.get(name, "–"))


def _of(about: Mapping[str, Any], group: str, name: str) -> str:
    return _given(about.get(group, {}), name)


def _details(about: Mapping[str, Any]) -> Markup:
    packages = about.get("packages", {})
    plugins = about.get("plugins", [])
    rows = [[p.get("name"), p.get("file"), tag("code", str(p.get("sha256"))[:16])] for p in plugins]
    files = table("files of the plugins", ["plugin", "file", "SHA-256, first 16 digits"], rows)
    versions = table("installed packages", ["package", "version"], packages.items())
    return join(
        [
            folded(f"Files of plugins ({len(plugins)})", files) if plugins else None,
            folded(f"Installed packages ({len(packages)})", versions) if packages else None,
        ]
    )


def _resumes(run: Run) -> Markup:
    rows: list[list[Child]] = []
    for line in run.resumes:
        said = [
            f"{name}: {' → '.join(map(figures.written, values))}"
            for name, values in line.get("changed", {}).items()
        ]
        rows.append(
            [
                _given(line, "time"),
                _given(line, "step"),
                str(line.get("checkpoint") or "–"),
                "; ".join(said) or "nothing",
            ]
        )
    heads = ["continued", "after step", "from", "changed"]
    return join([tag("h3", "Continued"), table(f"when {run.label} was continued", heads, rows)])


def files(runs: list[Run]) -> Markup:
    """Checkpoints and exported weights."""
    shown: list[Child] = []
    for run in runs:
        if len(runs) > 1:
            shown.append(tag("h3", run.label))
        rows: list[list[Child]] = [
            [tag("code", found.name), formats.size(found.size), formats.moment(found.time)]
            for found in checkpoints(run.path)
        ]
        for name in (run.exported or {}).get("files", []):
            known = written(run.path, name)
            rows.append(
                [
                    tag("code", name),
                    formats.size(known.size) if known else "not there any more",
                    formats.moment(known.time) if known else "–",
                ]
            )
        shown.append(_listed(run, rows))
    return tag("section", tag("h2", "Checkpoints and weights"), shown, id="files")


def _listed(run: Run, rows: list[list[Child]]) -> Markup:
    if not rows:
        return tag("p", "Neither checkpoints nor exported weights yet.", class_="note")
    body = table(f"files of {run.label}", ["file", "size", "written"], rows)
    if len(rows) <= 12:
        return body
    newest = table(f"newest files of {run.label}", ["file", "size", "written"], rows[-6:])
    return join([newest, folded(f"All {len(rows)} files", body)])


def where(path: Path) -> str:
    """A folder as it is shown: below the home directory with a tilde."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)
