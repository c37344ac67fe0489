"""Images and captions are read row by row, and checked before the long work."""

from __future__ import annotations

import io
import json

import datasets
import numpy as np
import pytest
from PIL import Image

from launcher.training.dataset import ImageTextTable, open_table
from launcher.training.errors import UserError


def png(height=8, width=8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue(), pixels


@pytest.fixture
def make(tmp_path):
    """Write a folder of images with the given rows changed, and open it."""

    def make(changes=None, rows=8, **options):
        lines = []
        for i in range(rows):
            for kind in ("image", "mask"):
                (tmp_path / f"{kind}{i}.png").write_bytes(png(seed=i)[0])
            row = {"image": f"image{i}.png", "mask": f"mask{i}.png", "text": f"caption {i}"}
            row.update((changes or {}).get(i, {}))
            lines.append(json.dumps(row) + "\n")
        (tmp_path / "metadata.jsonl").write_text("".join(lines))
        options.setdefault("image_columns", ["image", "mask"])
        return ImageTextTable(open_table(dataset_name=str(tmp_path)), **options)

    return make


def problems(table, rows=None):
    with pytest.raises(UserError) as caught:
        table.check(rows)
    return str(caught.value)


def test_a_row_is_its_images_its_captions_and_its_number(make):
    table = make()
    table.check()
    assert len(table) == 8
    row = table[3]
    assert row.captions == ("caption 3",) and row.row == 3
    for image in row.images:
        np.testing.assert_array_equal(image, png(seed=3)[1])
    assert [r.row for r in table] == list(range(8))
    with pytest.raises(IndexError):
        table[8]
    with pytest.raises(IndexError):
        table[-1]


def test_paths_may_be_absolute(make, tmp_path):
    table = make({0: {"image": str(tmp_path / "image5.png")}})
    table.check()
    np.testing.assert_array_equal(table.image(0, "image"), png(seed=5)[1])


def test_captions_may_be_lists_and_are_read_without_images(make, tmp_path):
    table = make({1: {"text": ["one", "two"]}})
    (tmp_path / "image1.png").unlink()
    assert table.captions(1) == ("one", "two")


def test_images_and_captions_stored_in_the_table(tmp_path):
    data = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": png(seed=i)[0], "path": None} for i in range(3)],
            "raw": [png(seed=i)[0] for i in range(3)],
            "text": [["a", "b"], ["c"], ["d"]],
        }
    ).cast_column("image", datasets.Image())
    data.save_to_disk(tmp_path / "data")
    table = ImageTextTable(open_table(dataset_name=str(tmp_path / "data")), ["image", "raw"])
    table.check()
    assert table[0].captions == ("a", "b")
    for image in table[2].images:
        np.testing.assert_array_equal(image, png(seed=2)[1])


def test_a_damaged_image_in_a_table_is_named_by_row(tmp_path):
    data = datasets.Dataset.from_dict({"image": [png()[0], png()[0][:90], None], "text": ["a"] * 3})
    data.save_to_disk(tmp_path / "data")
    message = problems(ImageTextTable(open_table(dataset_name=str(tmp_path / "data"))))
    assert "row 1, column 'image': the stored image: " in message
    assert "row 2, column 'image': nothing is stored there" in message


def test_a_missing_column_is_an_error_at_once(make):
    with pytest.raises(UserError, match=r"no column 'masks'.* Did you mean 'mask'\?"):
        make(image_columns=["image", "masks"])
    with pytest.raises(UserError, match="no column 'caption'; it has 'image', 'mask', 'text'"):
        make(caption_column="caption")


def test_every_missing_image_is_counted_and_five_are_named(make, tmp_path):
    table = make()
    for i in range(7):
        (tmp_path / f"mask{i}.png").unlink()
    message = problems(table)
    assert str(tmp_path / "metadata.jsonl") in message and "counted from 0" in message
    assert "7 x missing image" in message
    path = tmp_path / "mask4.png"
    assert f"row 4 (line 5), column 'mask': {path}: there is no such file" in message
    assert "row 5" not in message and "... and 2 more" in message
    table.check(rows=[7])
    assert "1 x missing image" in problems(table, rows=[6, 7])


def test_all_kinds_of_problems_are_reported_together(make, tmp_path):
    table = make(
        {
            0: {"image": None},
            1: {"image": 7},
            2: {"image": "https://example.org/a.png"},
            3: {"text": ""},
        }
    )
    (tmp_path / "image4.png").write_bytes(png()[0][:-30])
    (tmp_path / "mask5.png").write_bytes(png(height=16)[0])
    message = problems(table)
    assert "row 0 (line 1), column 'image': nothing is stored there" in message
    assert "row 1 (line 2), column 'image': a number (7) is stored there" in message
    assert "row 2 (line 3), column 'image': https://example.org/a.png is an address" in message
    assert "row 3 (line 4), column 'text': the caption is empty" in message
    assert f"row 4 (line 5), column 'image': {tmp_path / 'image4.png'}: " in message
    assert "1 x row whose images differ in aspect ratio\n    row 5 (line 6): " in message
    assert "'image' is 8 x 8, 'mask' is 8 x 16 (width x height)" in message


@pytest.mark.parametrize(
    "caption, reason",
    [
        ("", "the caption is empty"),
        ("a \ud800", "the caption holds half of a surrogate pair"),
        (" \n", "the caption is empty"),
        (None, r"the caption is nothing \(null\)"),
        (3.5, r"the caption is a number \(3.5\), and text or a list of texts is expected"),
        (True, r"the caption is a truth value"),
        ({"en": "x"}, "the caption is an object"),
        ([], "the caption is an empty list"),
        (["a", ""], "an empty caption in the list"),
        (["a", 1], r"the list of captions holds a number \(1\)"),
        ([["a"]], "the list of captions holds a list"),
    ],
)
def test_captions_of_the_wrong_kind(make, caption, reason):
    table = make({2: {"text": caption}})
    with pytest.raises(UserError, match=rf"row 2 \(line 3\), column 'text': {reason}"):
        table.check()
    with pytest.raises(UserError, match=rf"row 2 \(line 3\).*column 'text': {reason}"):
        table[2]


def test_what_goes_wrong_after_the_check_still_names_the_row(make, tmp_path):
    table = make()
    table.check()
    (tmp_path / "image2.png").unlink()
    (tmp_path / "mask3.png").write_bytes(b"x")
    (tmp_path / "mask4.png").write_bytes(png(height=20)[0])
    with pytest.raises(UserError, match=r"row 2 \(line 3\).*image2.png.*no such file"):
        table[2]
    with pytest.raises(UserError, match=r"row 3 \(line 4\).*mask3.png.*not an image"):
        table[3]
    with pytest.raises(UserError, match=r"row 4 \(line 5\).*aspect ratio"):
        table[4]


def test_images_of_different_size_but_one_shape_are_accepted(make, tmp_path):
    table = make()
    (tmp_path / "mask0.png").write_bytes(png(height=16, width=16)[0])
    table.check()
    assert [image.shape for image in table[0].images] == [(8, 8, 3), (16, 16, 3)]


def test_sizes_are_those_that_the_check_came_by(make, tmp_path, monkeypatch):
    for number, (height, width) in ((2, (8, 16)), (5, (24, 8))):
        for kind in ("image", "mask"):
            (tmp_path / f"other-{kind}{number}.png").write_bytes(png(height, width)[0])
    changes = {n: {k: f"other-{k}{n}.png" for k in ("image", "mask")} for n in (2, 5)}
    expected = [(8, 8), (8, 8), (8, 16), (8, 8), (8, 8), (24, 8), (8, 8), (8, 8)]

    table = make(changes)
    np.testing.assert_array_equal(table.sizes(), expected)  # without a check
    assert table.sizes().dtype == np.uint32

    table = make(changes)
    table.check()
    monkeypatch.setattr("launcher.training.dataset.image_size", lambda source: pytest.fail("read"))
    np.testing.assert_array_equal(table.sizes(), expected)

    table = make(changes)
    table.check([1, 2])
    read = []
    monkeypatch.setattr(
        "launcher.training.dataset.image_size", lambda source: read.append(source.name) or (1, 2)
    )
    assert table.sizes()[[0, 1, 2]].tolist() == [[1, 2], [8, 8], [8, 16]]
    assert read == [changes.get(n, {}).get("image", f"image{n}.png") for n in (0, 3, 4, 5, 6, 7)]


def test_an_image_without_a_size_is_named(make, tmp_path):
    table = make()
    (tmp_path / "image6.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"row 6 \(line 7\).*'image'.*image6.png cannot be used"):
        table.sizes()
