"""The figures of a small run, to the letter."""

import json
import re
from html import unescape

import pytest
import yaml

from launcher.logs import Logs
from launcher.report.figures import MISSING, differences, summary, written
from launcher.report.page import page
from launcher.report.run import read_run


@pytest.fixture
def known(tmp_path):
    """A run of 150 of 200 steps whose figures are easy to reckon; its folder."""
    folder = tmp_path / "known"
    (folder / "validation").mkdir(parents=True)
    lines = [
        {
            "step": step,
            "loss": 8.0 if step <= 50 else 2.0 if step <= 100 else 1.0,
            "lr": 0.1,
            # Two long steps: the median is not the mean.
            "step_seconds": 10.0 if step in (1, 2) else 2.0,
            "stall_share": 0.5 if step in (1, 2) else 0.0,
            "samples_per_second": 0.4 if step in (1, 2) else 4.0,
            "skipped": step in (7, 9, 11),
            "memory_bytes": 31_200_000_000 if step == 70 else 29_500_000_000,
        }
        for step in range(1, 151)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = [
        {"step": 50, "loss": 0.9, "loss_without_control": 0.95, "loss_shuffled_control": 1.9,
         "residual_norm": 0.01},
        {"step": 150, "loss": 0.5, "loss_without_control": 0.7, "loss_shuffled_control": 0.8,
         "residual_norm": 0.02},
    ]  # fmt: skip
    log = folder / "validation" / "figures.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text("train: {max_train_steps: 200}\n")
    return folder


def of(folder, later=7500):
    run = read_run(folder, "known")
    return summary(run, run.written + later)


def test_every_figure(known):
    assert of(known) == {
        "steps": "150 of 200",
        "state": "stopped, last step 2 h 5 min before this page",
        "left, steps alone": "about 1 min 40 s",
        "final loss": "1.5 (mean of 100 steps)",
        "validation loss": "0.5",
        "control gap": "0.3",
        "residual norm": "0.02",
        "time of a step": "2 s",
        "time of all steps": "5 min 16 s",
        "samples per second": "4",
        "waited for data": "3.16 %",
        "memory, most": "31.2 GB",
        "updates skipped": "3",
    }


def test_they_are_the_tiles_of_the_page(known):
    text = page([read_run(known, "known")])
    tiles = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    expected = of(known, later=1)
    assert {unescape(name): unescape(value) for name, value in tiles} == expected


def test_a_control_that_is_not_looked_at(known):
    log = known / "validation" / "figures.jsonl"
    log.write_text('{"step": 1, "loss": 0.5, "loss_shuffled_control": 0.25}\n')
    assert of(known)["control gap"] == "-0.25"


def test_a_run_that_goes_on(known):
    logs = Logs(known)
    logs.reopen("metrics.jsonl")
    try:
        assert of(known, later=0.2)["state"] == "going on, last step 1 s before this page"
        assert of(known, later=-9)["state"] == "going on, last step 1 s before this page"
    finally:
        logs.close()
    assert of(known, later=0.2)["state"] == "stopped, last step 1 s before this page"


def test_where_it_is_not_known_whether_it_goes_on(known, monkeypatch):
    monkeypatch.setattr("launcher.report.run.is_open", lambda path: None)
    assert of(known, later=600)["state"] == "not finished, last step 10 min before this page"


def test_a_finished_run_and_one_without_a_plan_have_nothing_left(known):
    (known / "exported.json").write_text('{"step": 150, "files": []}')
    found = of(known)
    assert found["state"] == "finished" and "left, steps alone" not in found
    (known / "exported.json").unlink()
    for plan in ("train: {max_train_steps: null}", "train: {}", "recipe: x", ""):
        (known / "config.yaml").write_text(plan or "{}")
        found = of(known)
        assert found["steps"] == "150" and "left, steps alone" not in found


def test_final_losses_of_runs_of_different_length_are_in_one_row(known, tmp_path):
    short = tmp_path / "short"
    short.mkdir()
    lines = (known / "metrics.jsonl").read_text().splitlines(keepends=True)
    (short / "metrics.jsonl").write_text("".join(lines[:40]))
    single = tmp_path / "single"
    single.mkdir()
    (single / "metrics.jsonl").write_text(lines[0])
    text = page([read_run(folder, folder.name) for folder in (known, short, single)])
    assert (
        '<th scope="row">final loss</th><td>1.5 (mean of 100 steps)</td>'
        "<td>8 (mean of 40 steps)</td><td>8 (1 step)</td>"
    ) in text


def test_an_option_that_only_one_run_has_is_a_difference(known, tmp_path):
    configs = [{"train": {"seed": 0}}, {"train": {"seed": 0, "own": None}, "recipe": "x"}]
    assert differences(configs) == {"train.own": [MISSING, None], "recipe": [MISSING, "x"]}
    assert differences(configs[::-1]) == {"train.own": [None, MISSING], "recipe": ["x", MISSING]}
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.jsonl").write_text("")
    (other / "config.yaml").write_text("train: {max_train_steps: 200, own: 3}\n")
    text = page([read_run(folder, folder.name) for folder in (known, other)])
    row = '<th scope="row">train.own</th><td>(no such option)</td><td>3</td>'
    assert row in text.partition("<h3>Differences</h3>")[2].partition("</table>")[0]
    text = page([read_run(folder, folder.name) for folder in (other, known)])
    row = '<th scope="row">train.own</th><td>3</td><td>(no such option)</td>'
    assert row in text.partition("<h3>Differences</h3>")[2].partition("</table>")[0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("null", "null"), ("true", "true"), ("1.0e-5", "1e-05"), ("''", "''"), ("[a, 1]", "[a, 1]"),
     ("{a: 2020-01-01}", "{a: 2020-01-01}"), ("&x [*x]", "&id001 [*id001]"), ("2020-01-01",) * 2],
)  # fmt: skip
def test_options_as_yaml_has_them(text, shown):
    assert written(yaml.safe_load(text)) == shown
