"""Images side by side: each where it belongs, scaled, and labels that fit."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launcher.training import fonts
from launcher.training.grid import Row, lay_out

RED, BLUE, GREY, WHITE = (255, 0, 0), (0, 0, 255), (0xDD,) * 3, (255,) * 3


def save(path, size, colour):
    Image.new("RGB", size, colour).save(path)
    return path


def boxes(grid, colour):
    """Left, top, right, bottom of the pixels of a colour."""
    mask = (np.asarray(grid) == colour).all(axis=2)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_images_are_where_row_and_column_meet(tmp_path):
    red, blue = save(tmp_path / "r.png", (64, 64), RED), save(tmp_path / "b.png", (64, 32), BLUE)
    grid = lay_out(["one", "two"], [Row("first", [red, None]), Row("second", [None, blue])], 64)
    left, top, right, bottom = boxes(grid, RED)
    assert (right - left, bottom - top) == (64, 64)
    blue_left, blue_top, blue_right, blue_bottom = boxes(grid, BLUE)
    assert (blue_right - blue_left, blue_bottom - blue_top) == (64, 32)
    assert blue_left > right and blue_top > bottom
    # What is missing is a grey field, in the first row right of the red image.
    assert grid.getpixel(((blue_left + blue_right) // 2, (top + bottom) // 2)) == GREY


def test_large_images_are_reduced_and_tiny_ones_enlarged(tmp_path):
    red = save(tmp_path / "r.png", (640, 320), RED)
    blue = save(tmp_path / "b.png", (10, 10), BLUE)
    grid = lay_out(["one", "two"], [Row("", [red, blue])], 128)
    left, top, right, bottom = boxes(grid, RED)
    assert (right - left, bottom - top) == (128, 64)
    left, _, right, _ = boxes(grid, BLUE)
    assert right - left == 60  # a whole multiple, so that its pixels stay sharp


@pytest.mark.parametrize("damage", ["truncated", "no image", "gone"])
def test_an_image_that_cannot_be_read_stays_empty(tmp_path, damage):
    red, other = (save(tmp_path / name, (64, 64), RED) for name in ("r.png", "o.png"))
    if damage == "gone":
        other.unlink()
    else:
        other.write_bytes(red.read_bytes()[:60] if damage == "truncated" else b"hello")
    made = lay_out(["one", "two"], [Row("", [red, other])], 64)
    empty = lay_out(["one", "two"], [Row("", [red, None])], 64)
    assert made.tobytes() == empty.tobytes()


def test_a_white_image_can_be_told_from_the_paper(tmp_path):
    white = save(tmp_path / "w.png", (64, 64), WHITE)
    left, top, right, bottom = boxes(lay_out(["one"], [Row("", [white])], 64), GREY)
    assert (right - left, bottom - top) == (66, 66)


def test_cutting_a_long_label_takes_no_time(tmp_path):
    red = save(tmp_path / "r.png", (64, 64), RED)
    started = time.process_time()
    lay_out(["one"], [Row("word " * 20_000, [red])], 64)
    assert time.process_time() - started < 5  # one character after the other: hours


def test_labels_in_other_scripts(tmp_path, monkeypatch):
    matplotlib = Path(importlib.util.find_spec("matplotlib").origin).parent
    dejavu = matplotlib / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    monkeypatch.setattr(fonts, "_files", lambda: (tmp_path / "no font.ttf", dejavu))
    (tmp_path / "no font.ttf").write_bytes(b"")
    assert fonts.font_for("a red circle", 14).getname()[0] != "DejaVu Sans"
    assert fonts.font_for("красный круг", 14).getname()[0] == "DejaVu Sans"
    assert fonts.font_for("红色圆形", 14) is None
    red = save(tmp_path / "r.png", (64, 64), RED)
    said = "(no font of this system has the characters of this label)"
    drawn = [lay_out(["one"], [Row(label, [red])], 64) for label in ("红色圆形", said)]
    assert drawn[0].tobytes() == drawn[1].tobytes()


def test_labels_are_drawn_and_cut_off_where_there_is_no_room(tmp_path):
    red = save(tmp_path / "r.png", (64, 64), RED)
    long = lay_out(["x" * 80, ""], [Row("y" * 200 + "\n\n", [red, red])], 64)
    short = lay_out(["", ""], [Row("", [red, red])], 64)
    assert long.size == short.size
    pixels, empty = np.asarray(long), np.asarray(short)
    assert (pixels != empty).any()
    # The first column's label ends before the second begins, and the row's before the edge.
    second = boxes(short, RED)[0] + 64
    assert (pixels[:30, second : second + 8] == WHITE).all() and (pixels[:, -4:] == WHITE).all()
