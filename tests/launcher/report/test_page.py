"""The page: what is on it, of what there is."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.synthetic_run import make
from launcher.report import formats, validation
from launcher.report.page import page
from launcher.report.run import read_run
from launcher.training.precision.graph import EMULATED
from tests.launcher.report.reader import Reader

NASTY = "<script>alert(1)</script>"


def made(*folders, labels=None):
    labels = labels or [folder.name for folder in folders]
    return page([read_run(folder, label) for folder, label in zip(folders, labels)])


def titles(text):
    return re.findall(r"<figcaption><b>(.*?)</b>", text)


def test_what_is_on_it(run):
    text = made(run)
    assert titles(text) == [
        "Loss", "Learning rate", "Gradient norm, before clipping", "Time of a step",
        "Waited for data, of a step&#x27;s time", "Memory in use", "Loss scale",
        "Loss of held-out samples", "Control gap", "Residual norm",
    ]  # fmt: skip
    sections = re.findall(r"<h2>(.*?)</h2>", text)
    assert sections == [
        "Figures", "Training", "Validation", "Validation images", "Precision", "Configuration",
        "Provenance", "Checkpoints and weights",
    ]  # fmt: skip
    seen = Reader(text)
    # 2 prompts, each with control, target, and three steps
    assert seen.tags.count("img") == 2 * 5
    assert "rings of a tree, number 1" in seen.text
    assert "300 of 300" in seen.text and "finished" in seen.text
    assert "diffusion_pytorch_model.safetensors" in seen.text
    assert "train.learning_rate" in seen.text and "2.10.0" in seen.text
    assert "float32 (12), bfloat16 (11)" in seen.text


def test_nothing_on_it_is_elsewhere(run, another):
    for text in (made(run), made(run, another)):
        seen = Reader(text)
        addresses = [v for name, v in seen.attributes if name in ("src", "href", "srcset", "data")]
        assert addresses and all(address.startswith("data:") for address in addresses)
        assert not re.search(r"url\(|@import|https?://", text)
        assert "default-src &#x27;none&#x27;" in text
        assert 'name="viewport" content="width=device-width, initial-scale=1"' in text


def test_charts_have_a_title_and_a_description(run):
    text = made(run)
    charts = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(charts) == 10
    for chart in charts:
        title, described = re.search(r'aria-labelledby="(\w+) (\w+)"', chart).groups()
        assert f'<title id="{title}">' in chart and f'<desc id="{described}">' in chart
    assert len(set(re.findall(r' id="(\w+)"', text))) == len(re.findall(r' id="(\w+)"', text))
    assert re.search(r"<desc[^>]*>first: [\d.]+ at step 1, [\d.]+ at step 300; lowest ", charts[0])


def test_several_runs_side_by_side(run, another):
    text = made(run, another)
    seen = Reader(text)
    assert titles(text)[:2] == ["Loss", "Learning rate"]
    chart = re.search(r"<svg.*?</svg>", text, re.S)[0]
    assert re.findall(r'class="(c\d) s0 line"', chart) == ["c0", "c1"]
    differences = re.search(r"<h3>Differences</h3>(.*?)</table>", text, re.S)[1]
    assert re.findall(r'<th scope="row">(.*?)</th>', differences) == [
        "train.max_train_steps", "train.learning_rate", "train.seed",
    ]  # fmt: skip
    assert "<td>1e-05</td><td>5e-06</td>" in differences
    assert "All 4 options of second" in seen.text


def test_the_kinds_of_held_out_loss_are_told_apart_when_runs_are_compared(run, tmp_path):
    other = make(tmp_path / "other", 100, validations=2, seed=1)
    text = made(run, other)
    title = "Loss of held-out samples, "
    found = [t for t in titles(text) if t.startswith(title)]
    assert [t.removeprefix(title) for t in found] == [
        "with its control", "without a control", "with another image&#x27;s control",
    ]  # fmt: skip
    charts = [c for c in re.findall(r"<figure.*?</figure>", text, re.S) if title in c]
    for chart, name in zip(charts, ("loss", "loss_without_control", "loss_shuffled_control")):
        for folder in (run, other):
            log = (folder / "validation" / "figures.jsonl").read_text().splitlines()
            first = json.loads(log[0])
            said = f"{folder.name}: {formats.number(first[name])} at step {first['step']}"
            assert said in chart
        assert re.findall(r'class="(c\d s\d) line"', chart) == ["c0 s0", "c1 s0"]


def test_all_lines_of_a_chart_are_smoothed_alike(run, another):
    text = made(run, another)  # of 300 and of 200 steps
    chart = re.search(r"<figure.*?</figure>", text, re.S)[0]
    assert re.findall(r"mean of \d+ steps", chart) == ["mean of 7 steps"]
    # So steps that two runs share are drawn alike, however long the runs are.
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (another / "metrics.jsonl").write_text("".join(lines[:100]))
    chart = re.search(r"<figure.*?</figure>", made(run, another), re.S)[0]
    one, other = re.findall(r'd="(M0 \d+l\d+ -?\d+ \d+ -?\d+) [^"]*" class="c\d s\d line"', chart)
    assert one == other
    short = make(another.parent / "short", 20)
    chart = re.search(r"<figure.*?</figure>", made(short, run), re.S)[0]
    assert chart.count(' raw"') == chart.count(' line"') == 2


def test_where_a_run_was_continued(run, another):
    lines = [{"step": step} for step in (0, 90, 100, 250, 900)]
    (run / "resumes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = made(run)
    chart = re.search(r"<figure.*?</figure>", text, re.S)[0]
    places = [round(4000 * (step - 1) / 299) for step in (90, 100, 250)]
    assert re.findall(r'd="M(\d+) 0v1000" class="resume"', chart) == list(map(str, places))
    # 100 would be written over 90.
    assert re.findall(r'class="resume" aria-hidden="true">(.*?)<', chart) == ["90", "250"]
    assert "Continued after step 90. Continued after step 100." in chart
    assert text.count("A thin vertical line is where a run was continued.") == 1
    assert 'class="c1 s0 resume"' in made(another, run)
    assert "vertical line" not in made(another)


def test_that_steps_are_across_is_said_once(run, another):
    for text in (made(run), made(run, another)):
        assert text.count("All charts are over the steps of the training.") == 1


def test_runs_that_are_configured_alike(run, tmp_path):
    other = tmp_path / "copy"
    other.mkdir()
    for name in ("metrics.jsonl", "config.yaml"):
        (other / name).write_text((run / name).read_text())
    assert "All options are the same." in made(run, other)


def test_texts_of_a_run_are_shown_as_text(run, another):
    (run / "validation" / "prompts.json").write_text(json.dumps([{"prompt": NASTY}] * 2))
    (run / "config.yaml").write_text(f"recipe: '{NASTY}'\ntrain:\n  output_dir: '{NASTY}'\n")
    (run / "provenance.json").write_text(
        json.dumps({"command_line": [NASTY], "packages": {NASTY: NASTY}, "device": NASTY})
    )
    part = {"stored": {NASTY: {"parameters": 1, "bytes": 4}}, "observed": {NASTY: {NASTY: 1}}}
    (run / "precision.json").write_text(json.dumps({"parts": {NASTY: part}, "notes": [NASTY]}))
    (run / "resumes.jsonl").write_text(
        json.dumps({"step": 1, "time": NASTY, "changed": {NASTY: [NASTY]}})
    )
    (run / "exported.json").write_text(json.dumps({"step": 1, "files": [NASTY]}))
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 301, NASTY: 3.5}) + "\n")
    plain = Reader(made(another)).tags.count("script")
    for text in (made(run, labels=[NASTY]), made(run, another, labels=[NASTY, "b"])):
        assert NASTY not in text
        seen = Reader(text)
        assert NASTY in seen.text
        # the page's own script, and one block of data a chart
        assert seen.tags.count("script") == 1 + len(titles(text))
        assert len(re.findall("<script>", text)) == 1
    assert plain == 1 + 7


def test_a_run_without_validation_and_precision_that_has_only_begun(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    text = made(tmp_path)
    assert "No step is done yet." in text and "<dd>stopped</dd>" in text
    assert "has no config.yaml" in text and "<h2>Validation" not in text
    assert "Neither checkpoints nor exported weights yet." in text


def test_losses_that_are_not_finite(tmp_path):
    lines = [{"step": n, "loss": None if n > 1 else 0.5, "lr": 0.1} for n in range(1, 6)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = made(tmp_path)
    assert "4 not finite, marked below" in text and text.count('class="lost"') == 1
    lines[0]["loss"] = None
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = made(tmp_path)
    assert "None of the values is a finite number." in text
    assert not re.search(r"\bnan\b|NaN", text.partition("<script>")[0])


def test_a_step_that_was_tried_again_is_not_lost(tmp_path):
    lines = [
        {"step": 1, "loss": None, "loss_scale": 4, "skipped": True},
        {"step": 1, "loss": 0.5, "loss_scale": 2, "skipped": False},
        {"step": 2, "loss": 0.4, "loss_scale": 2, "skipped": False},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = made(tmp_path)
    assert 'class="lost"' not in text
    assert re.search(r"<dt>updates skipped</dt><dd>1</dd>", text)


def test_figures_of_other_recipes_have_a_chart(run):
    (run / "validation" / "figures.jsonl").write_text('{"step": 5, "score": 0.5, "loss": 1}\n')
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1, "loss_average": 2}\n')
    assert titles(made(run)) == [
        "Loss",
        "loss_average",
        "Loss of held-out samples",
        "Validation: score",
    ]


def test_many_images_are_made_small(run):
    for step in range(20):
        folder = run / "validation" / f"step-{1000 + step:06d}"
        folder.mkdir()
        for number in range(12):
            Image.effect_noise((200, 200), 100).save(folder / f"prompt-{number}.png")
    text = made(run)
    assert "8 of 23 validations are shown" in text
    assert len(text) < 3_000_000
    names = re.findall(r'alt="step 1,019: (.*?)"', text)
    assert names[-2:] == ["prompt-10", "prompt-11"]


def pictures(text):
    """Images by what they are called."""
    found = re.findall(r'<img src="data:image/jpeg;base64,(.*?)" alt="(.*?)">', text)
    return {name: Image.open(io.BytesIO(base64.b64decode(data))) for data, name in found}


def colours(run, side):
    """Make each image of a run one of its own colour; the colours by what the images are called."""
    names = {
        f"{name}: rings of a tree, number {number}": path
        for number in (0, 1)
        for name, path in {
            "control": f"control-{number}.png",
            "target": f"target-{number}.png",
            **{f"step {s}": f"step-{s:06d}/prompt-{number}.png" for s in (100, 200, 300)},
        }.items()
    }
    made_of = {}
    for index, (name, path) in enumerate(names.items()):
        made_of[name] = (20 * index, 255 - 20 * index, 90)
        Image.new("RGB", (side, side), made_of[name]).save(run / "validation" / path)
    return made_of


def test_each_image_is_in_its_place(run):
    expected = colours(run, 512)
    found = pictures(made(run))
    # From left to right: what is compared with, and the newest first.
    assert [name.partition(":")[0] for name in found] == [
        "control", "target", "step 300", "step 200", "step 100",
    ] * 2  # fmt: skip
    for name, picture in found.items():
        near = [abs(a - b) for a, b in zip(picture.getpixel((9, 9)), expected[name])]
        assert max(near) < 6, name
    head = re.search(r'<table class="images".*?</thead>', made(run))[0]
    assert re.findall(r'"col">(.*?)<', head) == [
        "control", "target", "step 300", "step 200", "step 100",
    ]  # fmt: skip


def test_images_of_other_prompts_are_not_shown_as_those_of_these(run):
    """The run was continued with other ones, in another order."""
    folder = run / "validation"
    entries = json.loads((folder / "prompts.json").read_text())
    for step in (100, 200):
        (folder / f"step-{step:06d}" / "prompts.json").write_text(json.dumps(entries))
    other = {**entries[0], "prompt": "something else"}
    for place in (folder, folder / "step-000300"):
        (place / "prompts.json").write_text(json.dumps([other, entries[0]]))
    found = validation.find(read_run(run, "a"))
    assert found.files[100, "prompt-1.png"] == folder / "step-000100" / "prompt-0.png"
    assert found.files[300, "prompt-1.png"] == folder / "step-000300" / "prompt-1.png"
    assert (100, "prompt-0.png") not in found.files
    assert found.files[300, "prompt-0.png"] == folder / "step-000300" / "prompt-0.png"


def test_images_to_look_at_closely_are_large(run):
    colours(run, 512)
    for name, picture in pictures(made(run)).items():
        is_small = name.startswith(("step 100", "step 200"))
        assert picture.size == ((320, 320) if is_small else (512, 512)), name


def test_a_page_of_many_large_images_is_below_3_mb(tmp_path):
    run = make(tmp_path / "run", 2000, validations=9, prompts=4, side=16)
    noise = tmp_path / "noise.png"  # nothing makes larger files
    Image.effect_noise((512, 512), 100).save(noise)
    for path in (run / "validation").rglob("*.png"):
        shutil.copy(noise, path)
    assert 1_000_000 < len(made(run)) < 3_000_000


def test_no_image_from_outside_the_folder_of_validations(run):
    elsewhere = run / "secret.png"
    Image.new("RGB", (9, 9)).save(elsewhere)
    (run / "validation" / "link.png").symlink_to(elsewhere)
    entries = [
        {"prompt": "a", "control": "../secret.png", "target": str(elsewhere)},
        {"prompt": "b", "control": "link.png", "target": "\0"},
    ]
    (run / "validation" / "prompts.json").write_text(json.dumps(entries))
    assert made(run).count("<img") == 2 * 3
    entries[0]["target"] = "step-000100/../target-0.png"
    (run / "validation" / "prompts.json").write_text(json.dumps(entries))
    assert made(run).count("<img") == 2 * 3 + 1


def test_the_precision_table(run):
    part = {
        "stored": {
            "bfloat16": {"parameters": 3_000_000, "bytes": 6_000_000},
            "float32": {"parameters": 1_000_000, "bytes": 4_000_000},
        },
        "trained": {"float32": {"parameters": 1_000_000, "bytes": 4_000_000}},
        "asked": {"computation": "bfloat16", "attention": "float32", "trained": True},
        "emulated": False,
        "observed": {"normalisation": {"float32": 12, "bfloat16": 11}, "matmul": {"bfloat16": 5}},
    }
    small = {
        "stored": {"float32": {"parameters": 4200, "bytes": 16_800}},
        "trained": {"float32": {"parameters": 4200, "bytes": 16_800}},
        "asked": {"computation": "bfloat16", "attention": "bfloat16", "trained": True},
        "emulated": True,
        "observed": {"matmul": {EMULATED: 2}},
    }
    frozen = {**small, "trained": {}, "asked": None, "emulated": False, "observed": {}}
    parts = {"transformer": part, "controlnet": small, "vae": frozen}
    (run / "precision.json").write_text(json.dumps({"parts": parts, "notes": ["a note"]}))
    section = re.search(r'<section id="precision">.*?</section>|<h2>Precision</h2>.*?</section>',
                        made(run), re.S)[0]  # fmt: skip
    rows = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in section.split("<tr>")[1:]]
    assert rows == [
        ["", "transformer", "controlnet", "vae"],
        ["stored in", "bfloat16, float32", "float32", "float32"],
        ["parameters", "4 M", "4.2 k", "4.2 k"],
        ["size", "10.0 MB", "16.8 kB", "16.8 kB"],
        ["trained", "25 %", "all", "frozen"],
        ["asked for", "bfloat16, attention float32", "bfloat16 (emulated)", "not said"],
        ["matmuls", "bfloat16", "bfloat16 (emulated)", "–"],
        ["norms", "float32 (12), bfloat16 (11)", "–", "–"],
    ]
    assert '<p class="note">a note</p>' in section


def test_an_image_that_is_being_written(run):
    (run / "validation" / "step-000100" / "prompt-0.png").write_bytes(b"\x89PNG\r\n")
    text = made(run)
    assert text.count("cannot be read") == 1 and text.count("<img") == 9


@pytest.mark.parametrize("kind", ["folder", "damaged", "text", "nested"])
def test_prompts_that_cannot_be_read(run, kind):
    path = run / "validation" / "prompts.json"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text({"damaged": "[{", "text": "3", "nested": "[" * 100_000}[kind])
    assert made(run).count("<img") == 2 * 3


def test_images_that_vanish_meanwhile(run, monkeypatch):
    found = read_run(run, "run")
    before = validation.encode

    def removing(paths, budget):
        shutil.rmtree(run / "validation", ignore_errors=True)
        return before(paths, budget)

    monkeypatch.setattr(validation, "encode", removing)
    assert "cannot be read" in page([found])


def test_a_folder_of_images_that_vanishes_meanwhile(run, monkeypatch):
    listed = Path.iterdir

    def removing(path):
        if path.name == "step-000100":
            shutil.rmtree(path)
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", removing)
    assert made(run).count("<img") == 2 * 4


def test_what_could_not_be_read_is_said_at_the_top(run, another):
    with open(run / "metrics.jsonl", "a") as file:
        file.write("nonsense\n")
    said = "metrics.jsonl: line 301 cannot be read and is left out."
    assert f'<p class="bad">{said}</p></header>' in made(run)
    assert f'<p class="bad">first: {said}</p></header>' in made(another, run)


def test_a_grid_stands_in_for_single_images(another):
    (another / "validation").mkdir()
    Image.new("RGBA", (4000, 300)).save(another / "validation" / "grid.png")
    text = made(another)
    assert text.count("<img") == 1 and "all steps" in text


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "nothing"),
        ({"train.learning_rate": [1, None], "plugins": [[], ["a"]]},
         "train.learning_rate: 1 → null; plugins: [] → [a]"),
    ],
)  # fmt: skip
def test_what_a_continued_run_changed(run, changed, says):
    line = {"time": "2026-01-02T", "step": 7, "checkpoint": "checkpoint-7", "changed": changed}
    (run / "resumes.jsonl").write_text(json.dumps(line) + "\n")
    assert f"2026-01-02T7checkpoint-7{says}" in Reader(made(run)).text
