"""The page in a browser without network, on a wide screen and on a phone."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from benchmarks.synthetic_run import make
from launcher.report.page import page
from launcher.report.run import read_run
from tests.browser import Browser, find

PHONE, WIDE = 390, 1280
#: `--c0` and `--c1` of style.css, and the ground.
COLOURS = {False: ((11, 105, 199), (199, 84, 0)), True: ((99, 176, 255), (255, 157, 87))}
PAPER = {False: (251, 251, 249), True: (20, 23, 26)}


@pytest.fixture(scope="module")
def browser():
    browser = Browser(find())
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of one run and of two, the second with a long name; as files."""
    folder = tmp_path_factory.mktemp("runs")
    first = read_run(make(folder / "first", 2000, validations=4), "first")
    name = "a_rather_long_name_of_a_run_without_any_space_in_it_" * 3 + "<script>alert(1)</script>"
    second = read_run(make(folder / "second", 1500, validations=3, learning_rate=1e-6), name)
    written = {"one": folder / "one.html", "two": folder / "two.html"}
    written["one"].write_text(page([first]), encoding="utf-8")
    written["two"].write_text(page([first, second]), encoding="utf-8")
    return written


def count(picture, colour, tolerance=12):
    """Pixels of about a colour."""
    return int((np.abs(picture.astype(int) - colour) <= tolerance).all(axis=-1).sum())


def boxes(browser, selector):
    """(left, top, right, bottom) of elements in the whole page, in pixels."""
    found = browser.evaluate(
        f"[...document.querySelectorAll({selector!r})].map(e => e.getBoundingClientRect())"
        ".map(b => [b.left, b.top + scrollY, b.right, b.bottom + scrollY])"
    )
    return [tuple(round(side) for side in box) for box in found]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("name", ["one", "two"])
def test_charts_are_where_they_should_be(browser, pages, name, width, dark):
    browser.open(pages[name], width, dark=dark)
    assert browser.complaints() == []
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width

    picture = np.asarray(browser.screenshot())
    assert picture.shape[1] == width
    assert count(picture, PAPER[dark], 0) > 0.1 * picture.shape[0] * width
    areas = boxes(browser, ".area")
    assert len(areas) == {"one": 10, "two": 12}[name]
    for number, (left, top, right, bottom) in enumerate(areas):
        assert 0 <= left < right <= width and right - left > 200 and bottom - top > 150
        drawn = picture[top - 2 : bottom + 2, left:right]
        # Of two runs, the lines of one may hide the other's in part.
        lines = sum(count(drawn, colour) for colour in COLOURS[dark])
        assert lines > 0.5 * (right - left), f"chart {number} is empty"
    for left, top, right, bottom in boxes(browser, ".x span, .y span"):
        assert 0 <= left < right <= width and bottom - top < 16  # on one line
    loss = picture[areas[0][1] : areas[0][3], areas[0][0] : areas[0][2]]
    both = [count(loss, colour) > 100 for colour in COLOURS[dark]]
    assert both == [True, name == "two"]


def log_of(folder, **columns):
    """A run that has but these figures, as a page; the file."""
    folder.mkdir()
    steps = range(1, len(next(iter(columns.values()))) + 1)
    lines = [dict(zip(("step", *columns), values)) for values in zip(steps, *columns.values())]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "page.html").write_text(page([read_run(folder, "run")]), encoding="utf-8")
    return folder / "page.html"


def scale(browser, side):
    """Slope and start of the pixels of values, by the labels that are in the middle of theirs."""
    selector = f".chart .{side} span:not(.first, .last)" if side == "x" else f".chart .{side} span"
    values = browser.evaluate(
        f"[...document.querySelectorAll({selector!r})].map(e => e.innerText.replace(',', ''))"
    )
    pixels = [(b[0] + b[2]) / 2 if side == "x" else (b[1] + b[3]) / 2
              for b in boxes(browser, selector)]  # fmt: skip
    assert len(pixels) >= 3
    fit = np.polyfit(np.array(values, float), pixels, 1)
    assert np.abs(np.polyval(fit, np.array(values, float)) - pixels).max() < 1.5
    return fit


_RISING = {step: 1 + (step - 1) / 19 for step in range(1, 21)}
_DIP = {step: 0.25 if step == 13 else 1.0 for step in range(1, 21)}
_LONG = {step: 1 + (step - 1) / 399 for step in range(1, 401)}  # smoothed, which changes nothing


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize(
    ("values", "at"),
    [(_RISING, (3, 8, 15, 18)), (_DIP, (5, 12, 13, 14)), (_LONG, (40, 200, 350))],
    ids=["rising", "dip", "smoothed"],
)
def test_a_line_is_where_the_axes_say(browser, tmp_path, values, at, width):
    browser.open(log_of(tmp_path / "run", loss=list(values.values())), width)
    picture = np.asarray(browser.screenshot()).astype(int)
    across, up = scale(browser, "x"), scale(browser, "y")
    assert across[0] > 0 > up[0]  # later is to the right, and more is above
    _, top, _, bottom = boxes(browser, ".area")[0]
    for step in at:
        x, y = np.polyval(across, step), np.polyval(up, values[step])
        around = picture[top - 2 : bottom + 2, round(x) - 1 : round(x) + 2]
        is_line = (np.abs(around - COLOURS[False][0]) < 40).all(axis=-1).any(axis=1)
        found = top - 2 + np.flatnonzero(is_line)
        # Where a steep line is cut in many points, one of its ends is the value.
        assert min(abs(found.min() - y), abs(found.max() - y)) < 3.5, (step, found, y)


def test_a_line_has_a_gap_where_it_has_no_value(browser, tmp_path):
    losses = [None if 150 < step <= 250 else 1 + step / 400 for step in range(1, 401)]
    browser.open(log_of(tmp_path / "run", loss=losses), WIDE)
    picture = np.asarray(browser.screenshot()).astype(int)
    _, top, _, bottom = boxes(browser, ".area")[0]
    across = scale(browser, "x")

    def drawn(first, last):
        a, b = (round(np.polyval(across, step)) for step in (first, last))
        lowest = bottom - (bottom - top) // 10  # below are the marks of what is lost
        ink = np.abs(picture[top:lowest, a:b] - COLOURS[False][0]).sum(axis=-1)
        return int((ink < 300).sum())  # the pale line behind the mean, too

    assert drawn(153, 248) == 0
    assert drawn(50, 145) > 100 and drawn(255, 350) > 100


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"stall_share": [0.125] * 20}, "12.5 %"),
        ({"memory_bytes": [31_200_000_000] * 20}, "31.2 GB"),
        ({"memory_bytes": [4200] * 20}, "4.20 kB"),
        ({"step_seconds": [0.0316] * 20}, "31.6 ms"),
        ({"step_seconds": [7500.0] * 20}, "2 h 5 min"),
        ({"loss": [0.000123456] * 20}, "1.235e-4"),
        ({"loss": [12345.678] * 20}, "12,346"),
    ],
)
def test_the_readout_writes_values_as_the_tiles_do(browser, tmp_path, figures, said):
    waited = {"step_seconds": [1.0] * 20} if "stall_share" in figures else {}
    browser.open(log_of(tmp_path / "run", **figures, **waited), WIDE)
    number = 1 if waited else 0
    browser.evaluate(f"document.querySelectorAll('.area')[{number}].focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Home")
    read = browser.evaluate(f"document.querySelectorAll('.read')[{number}].innerText")
    assert read == f"step 1: {said}"
    tiles = browser.evaluate("[...document.querySelectorAll('dd')].map(e => e.innerText)")
    assert any(tile.split(" (")[0] == said for tile in tiles), tiles


def test_images_are_shown(browser, pages):
    browser.open(pages["one"], WIDE)
    sizes = browser.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert sizes == [[True, 64]] * 2 * 6


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_an_image_is_large_after_a_click_and_small_after_another(browser, pages, width, script):
    browser.open(pages["one"], width, script=script)
    where = (
        "(e => (e.scrollIntoView({block: 'center'}), e.getBoundingClientRect().toJSON()))"
        "(document.querySelectorAll('.images img')[2])"
    )

    def click():
        box = browser.evaluate(where)
        at = {"x": box["left"] + box["width"] / 2, "y": box["top"] + box["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            browser.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)
        return browser.evaluate(where)

    small = browser.evaluate(where)
    assert small["width"] == small["height"] < 300
    large = click()
    assert (large["width"], large["height"]) == (width, 900)
    assert click()["width"] == small["width"]
    click()
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Escape")
    assert browser.evaluate(where)["width"] == (small["width"] if script else width)


def test_the_newest_validation_is_seen_first_on_a_phone(browser, pages):
    browser.open(pages["one"], PHONE)
    heads = "[...document.querySelectorAll('.images thead th')].map(e => e.innerText)"
    assert browser.evaluate(heads)[2] == "step 2,000"
    (left, _, right, _) = boxes(browser, ".images img")[2]
    assert 0 < left < right <= PHONE


def test_an_image_of_an_extreme_shape_does_not_fill_the_page(browser, tmp_path):
    run = make(tmp_path / "run", 20, validations=1)
    Image.new("RGB", (20, 2000)).save(run / "validation" / "step-000020" / "prompt-0.png")
    (tmp_path / "page.html").write_text(page([read_run(run, "run")]), encoding="utf-8")
    browser.open(tmp_path / "page.html", PHONE)
    assert max(b - t for _, t, _, b in boxes(browser, ".images img")) < 400


def test_nothing_is_lost_without_javascript(browser, pages):
    def text():
        return browser.call("Runtime.evaluate", expression="document.body.innerText")

    browser.open(pages["one"], WIDE)
    with_script = text()
    browser.open(pages["one"], WIDE, script=False)
    assert browser.complaints() == []
    assert text() == with_script and "validation loss" in str(with_script)


def test_values_under_the_pointer_and_by_the_keyboard(browser, pages):
    browser.open(pages["two"], WIDE)
    left, top, right, _ = boxes(browser, ".area")[0]
    browser.evaluate("document.querySelector('.area').scrollIntoView()")
    offset = browser.evaluate("scrollY")
    browser.call(
        "Input.dispatchMouseEvent",
        type="mouseMoved", x=(left + right) / 2, y=top + 20 - offset,
    )  # fmt: skip
    read = "document.querySelector('.read').innerText"
    said = browser.evaluate(read)
    assert said.startswith("first, steps 9") or said.startswith("first, steps 1,00")
    assert said.count("mean;") == 2 and "<script>alert(1)</script>, steps" in said

    browser.evaluate("document.querySelectorAll('.area')[1].focus()")
    for key in ("Home", "ArrowRight"):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key=key)
    said = browser.evaluate("document.querySelectorAll('.read')[1].innerText")
    assert said.startswith("first, steps ") and "e-" in said


def test_values_under_a_finger(browser, pages):
    def touch(kind, *points):
        browser.call(
            "Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y} for x, y in points]
        )

    def read(number):
        return browser.evaluate(f"document.querySelectorAll('.read')[{number}].innerText")

    browser.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=1)
    try:
        browser.open(pages["one"], PHONE)
        browser.evaluate("document.querySelector('.area').scrollIntoView({block: 'center'})")
        left, top, right, bottom = boxes(browser, ".area")[0]
        y = (top + bottom) / 2 - browser.evaluate("scrollY")
        touch("touchStart", ((left + right) / 2, y))
        touch("touchEnd")
        assert re.match(r"steps (99\d|1,00\d) to 1,0\d\d: ", read(0)), read(0)
        touch("touchStart", ((left + right) / 2, y))
        for share in (0.4, 0.3, 0.25):
            touch("touchMove", (left + share * (right - left), y))
        touch("touchEnd")
        assert re.match(r"steps (49\d|50\d) to ", read(0)), read(0)
    finally:
        browser.call("Emulation.setTouchEmulationEnabled", enabled=False)


def test_the_contrast_of_letters(browser, pages):
    """4.5 to 1, as WCAG 2.1 asks for (1.4.3)."""

    def luminance(colour):
        c = np.array(colour) / 255
        c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return float(c @ [0.2126, 0.7152, 0.0722])

    def shown(selector, what):
        text = browser.evaluate(f"getComputedStyle(document.querySelector({selector!r})).{what}")
        return [int(n) for n in text[text.index("(") + 1 : -1].split(",")[:3]]

    for dark in (False, True):
        browser.open(pages["one"], WIDE, dark=dark)
        for selector, ground in (
            ("h1", "body"), (".note", "body"), ("dt", ".tiles div"), (".y span", ".chart"),
            ("summary", "body"),
        ):  # fmt: skip
            a = luminance(shown(selector, "color"))
            b = luminance(shown(ground, "backgroundColor"))
            assert (max(a, b) + 0.05) / (min(a, b) + 0.05) >= 4.5, (selector, dark)


def test_the_browser_tells_what_is_wrong(browser, tmp_path):
    """Or the tests above could not fail."""
    wrong = tmp_path / "wrong.html"
    wrong.write_text(
        "<!DOCTYPE html><meta name=viewport content='width=device-width'>"
        "<p style='width: 500px'><img src='http://localhost/x.png'><script>missing()</script>"
    )
    browser.open(wrong, PHONE)
    assert browser.evaluate("document.documentElement.scrollWidth") > PHONE
    complaints = browser.complaints()
    assert "http://localhost/x.png" in complaints
    assert "missing is not defined" in str(complaints)
