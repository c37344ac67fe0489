"""The page."""

from __future__ import annotations

import base64
import hashlib
import time
from importlib import resources

from launcher.report import charts, formats, sections, validation
from launcher.report.chart import draw
from launcher.report.colours import key
from launcher.report.html import Child, Markup, join, tag
from launcher.report.run import Run


def page(runs: list[Run]) -> str:
    """A report about runs, as one HTML file that needs no other.

    Args:
        runs: at least one, with labels that differ.
    """
    names = " · ".join(run.label for run in runs)
    title = f"{names}: report" if len(runs) == 1 else f"{len(runs)} runs: {names}"
    number = iter(range(1, 10_000))
    marks = charts.resumes(runs)
    drawn = {
        "steps": [draw(chart, next(number), marks) for chart in charts.of_steps(runs)],
        "validations": [draw(chart, next(number), marks) for chart in charts.of_validations(runs)],
    }
    said = "All charts are over the steps of the training."
    if marks:
        said += " A thin vertical line is where a run was continued."
    now = time.time()
    parts = [
        sections.summary(runs, now),
        _charts("Training", "training", drawn["steps"], said)
        or tag("section", tag("h2", "Training"), tag("p", "No step is done yet."), id="training"),
        _charts("Validation", "validation", drawn["validations"]),
        validation.section(runs),
        sections.precision(runs),
        sections.configuration(runs),
        sections.provenance(runs),
        sections.files(runs),
    ]
    body = [
        tag(
            "header",
            tag("h1", names if len(runs) == 1 else f"{len(runs)} runs"),
            _subtitle(runs),
            _problems(runs),
        ),
        tag("main", parts),
        tag("footer", f"Made by launcher report, {formats.moment(now)}."),
    ]
    style, script = _file("style.css"), _file("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing is fetched, and no other script runs, whatever the texts of a run contain.
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Markup(style)),
    ]
    last = tag("script", Markup(script))
    document = tag("html", tag("head", head), tag("body", body, last), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _charts(title: str, name: str, drawn: list[Markup | None], said: str = "") -> Markup | None:
    figures = [figure for figure in drawn if figure is not None]
    if not figures:
        return None
    note = tag("p", said, class_="note") if said else None
    return tag("section", tag("h2", title), note, tag("div", figures, class_="charts"), id=name)


def _subtitle(runs: list[Run]) -> Markup:
    """Of one run: its folder and its state. Of several: which colour is whose."""
    if len(runs) > 1:
        keys: Child = [
            tag(
                "li",
                key(run.label, number),
                tag("span", sections.where(run.path), class_="note"),
            )
            for number, run in enumerate(runs)
        ]
        return tag("ul", keys, class_="legend runs")
    (run,) = runs
    recipe = run.config.get("recipe")
    written = f"last step written {formats.moment(run.written)}" if len(run.steps) else None
    said = [f"recipe {recipe}" if recipe else None, sections.where(run.path), written]
    return tag("p", join(" · ".join(part for part in said if part)), class_="note")


def _problems(runs: list[Run]) -> list[Markup]:
    """What could not be read, and is not in the figures and charts."""
    return [
        tag("p", problem if len(runs) == 1 else f"{run.label}: {problem}", class_="bad")
        for run in runs
        for problem in run.problems
    ]


def _file(name: str) -> str:
    return resources.files("launcher.report").joinpath(name).read_text(encoding="utf-8")
