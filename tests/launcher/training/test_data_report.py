"""The report on a data set: everything that is wrong is found, by row; the rest is measured."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from launcher.training.data_report import Length, Part, describe, look_at, open_rows, summary
from launcher.training.data_report.summary import distinct_images
from launcher.training.dataset import ImageTextTable
from launcher.training.errors import UserError
from launcher.training.image_folder import ImageFolder
from launcher.training.images import resize_and_crop

SQUARE = [(64, 64)]
COLUMNS = ("image", "condition")


def encoded(width=64, height=64, colour=0, format="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (colour, 0, 0)).save(stream, format=format)
    return stream.getvalue()


def photo(side=256):
    """A JPEG with a good deal of data in it."""
    noise = np.random.default_rng(0).normal(size=(side, side, 3)).cumsum(0).cumsum(1)
    pixels = (noise - noise.min()) / (noise.max() - noise.min()) * 255
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, format="JPEG", quality=90)
    return stream.getvalue()


@pytest.fixture
def data(tmp_path):
    """Write rows, images as bytes or None; the table over them, with what cannot be read."""

    def make(rows, columns=COLUMNS, caption="text", default=None, **part):
        lines = []
        for number, row in enumerate(rows):
            if isinstance(row, bytes):
                lines.append(row)
                continue
            row = {name: row[name] for name in (*columns, "text")}
            for column in columns:
                if isinstance(row.get(column), bytes):
                    name = f"{column}{number}.img"
                    (tmp_path / name).write_bytes(row[column])
                    row[column] = name
            lines.append(json.dumps(row).encode())
        (tmp_path / "metadata.jsonl").write_bytes(b"\n".join(lines))
        table, unreadable = open_rows(dataset_name=str(tmp_path))
        return Part("", ImageTextTable(table, columns, caption, default), None, unreadable, **part)

    return make


def row(text="a dog", image=None, condition=None):
    image = encoded() if image is None else image
    return {"image": image, "condition": image if condition is None else condition, "text": text}


def found_in(problems):
    """Row and kind of what was found."""
    return sorted((item["row"], kind["kind"]) for kind in problems for item in kind["items"])


def figures(part, sizes=SQUARE, full=False, every=True, **options):
    return summary(look_at(part, full=full, every=every), sizes=sizes, **options)


# -------------------------------------------------------------------------------------------
# What is wrong
# -------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_found_in_one_pass(data, tmp_path):
    part = data(
        [
            row(),
            b'{"text": "\xff"}',
            row(image="gone.png"),
            row(image=encoded()[:60]),
            row(condition=encoded(64, 96)),
            row(condition=encoded(128, 128)),
            row(""),
            row(["a", " "]),
            row(7),
            row("half \ud800 of it"),
            b"{nonsense",
            b"[1]",
            row(image=b""),
            row(None),
        ]
    )
    report = figures(part)
    assert found_in(report["problems"]) == [
        (1, "line that cannot be read"),
        (2, "missing image"),
        (2, "missing image"),  # both columns name it
        (3, "image that cannot be decoded"),
        (3, "image that cannot be decoded"),
        (4, "row whose images differ in aspect ratio"),
        (6, "empty caption"),
        (7, "empty caption"),
        (8, "unusable caption"),
        (9, "unusable caption"),
        (10, "line that cannot be read"),
        (11, "line that cannot be read"),
        (12, "image that cannot be decoded"),
        (12, "image that cannot be decoded"),
        (13, "empty caption"),
    ]
    assert found_in(report["notes"]) == [
        (5, "row whose images differ in size, not in aspect ratio")
    ]
    assert (report["rows"], report["usable_rows"]) == (14, 2)
    (missing,) = (kind for kind in report["problems"] if kind["kind"] == "missing image")
    assert missing["items"][0] == {
        "row": 2,
        "where": "row 2 (line 3)",
        "text": f"{tmp_path / 'gone.png'}: there is no such file",
        "column": "image",
        "file": str(tmp_path / "gone.png"),
    }
    json.dumps(report)


def test_rows_agree_with_the_check_that_a_run_makes(data):
    part = data([row(), row(image="gone.png"), row(""), row(condition=encoded(64, 96)), row()])
    findings = look_at(part)
    for number, usable in enumerate(findings.usable):
        if usable:
            part.table.check([number])
        else:
            with pytest.raises(UserError):
                part.table.check([number])
    assert findings.usable.tolist() == [True, False, False, False, True]


def test_rows_keep_their_numbers_beside_lines_that_cannot_be_read(data):
    part = data([b"{", row("first"), b"\n", row("second")])
    assert part.unreadable.keys() == {0} and part.table.table.get(0, "text") is None
    assert part.table.captions(1) == ("first",) and part.table.captions(2) == ("second",)


def test_a_limit_counts_lines_that_cannot_be_read(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n{\n{"text": "b"}\n')
    table, unreadable = open_rows(jsonl_for_train=str(tmp_path / "d.jsonl"), max_train_samples=2)
    assert len(table) == 2 and unreadable.keys() == {1}


@pytest.mark.parametrize("content", ["{\n[]\n", '[{"text": "a"}]', ""])
def test_a_file_without_a_line_that_can_be_read_is_an_error(tmp_path, content):
    (tmp_path / "d.jsonl").write_text(content)
    with pytest.raises(UserError):
        open_rows(jsonl_for_train=str(tmp_path / "d.jsonl"))


def test_only_a_few_examples_are_kept_unless_all_are_wanted(data):
    part = data([row("x", image="gone.png") for _ in range(12)], columns=("image",))
    few, all_of_them = figures(part, every=False), figures(part)
    assert few["problems"][0]["count"] == all_of_them["problems"][0]["count"] == 12
    assert len(few["problems"][0]["items"]) == 5
    assert len(all_of_them["problems"][0]["items"]) == 12
    assert "    ... and 7 more" in describe(few) and "    ... and 7 more" in describe(all_of_them)


def test_jpeg_that_ends_early_is_found_at_once_and_damage_inside_by_decoding(data):
    whole = photo()
    hole = bytearray(whole)
    hole[len(hole) // 2 : len(hole) // 2 + 200] = b"\xff\xd9" * 100
    part = data(
        [row(image=whole), row(image=whole[:-500]), row(image=bytes(hole))], columns=("image",)
    )
    quick, full = figures(part), figures(part, full=True)
    assert found_in(quick["problems"]) == [(1, "image that cannot be decoded")]
    assert quick["notes"] == []
    assert "shows only with --full" in describe(quick)
    assert found_in(full["problems"]) == [(1, "image that cannot be decoded")]
    assert found_in(full["notes"]) == [(2, "damaged image that still decodes to something")]
    assert "JPEG files" not in describe(full)


def test_standard_error_is_as_before(data, capfd):
    import os

    part = data([row(image=photo())], columns=("image",))
    look_at(part, full=True)
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


# -------------------------------------------------------------------------------------------
# Images
# -------------------------------------------------------------------------------------------


def test_sizes_and_aspect_ratios(data):
    shapes = [(64, 64), (64, 64), (128, 64), (64, 200)]
    part = data([row(image=encoded(*shape)) for shape in shapes], columns=("image",))
    image = figures(part)["images"]["image"]
    assert image["width"] == {"min": 64, "median": 64, "max": 128}
    assert image["height"] == {"min": 64, "median": 64, "max": 200}
    assert image["most_common"][0] == {"width": 64, "height": 64, "images": 2}
    assert image["sizes"] == 3
    counts = {(r["from"], r["below"]): r["images"] for r in image["aspect_ratios"] if r["images"]}
    assert counts == {(0.0, 0.5): 1, (0.9, 1.1): 2, (2.0, None): 1}


def test_what_the_crop_cuts_off_is_what_resize_and_crop_cuts_off(data):
    part = data(
        [row(image=encoded(*shape)) for shape in [(128, 64), (96, 64), (64, 64), (32, 32)]],
        columns=("image",),
    )
    report = figures(part)
    # 128 x 64 loses half, 96 x 64 a third: as many columns as the crop leaves out.
    assert report["crop"] == {"limit": 0.25, "largest": 0.5, "images": 2, "rows": [0, 1]}
    assert report["enlarged"] == {"largest": 2.0, "images": 1, "rows": [3]}
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 255
    assert resize_and_crop(wide, 64, 64).min() == 255


def test_with_buckets_each_image_is_measured_at_the_nearest(data):
    part = data(
        [row(image=encoded(*shape)) for shape in [(128, 64), (64, 64), (127, 64)]],
        columns=("image",),
    )
    report = figures(part, sizes=[(64, 64), (64, 128)])
    assert [size["images"] for size in report["training_sizes"]] == [1, 2]
    assert report["crop"]["images"] == 0 and report["crop"]["largest"] < 0.01
    assert report["enlarged"]["rows"] == [2]


def test_images_are_told_apart_by_file_or_by_content(data):
    part = data([row(image=encoded(colour=colour)) for colour in (1, 2, 1)], columns=("image",))
    quick, full = figures(part), figures(part, full=True)
    assert (quick["images"]["image"]["distinct"], full["images"]["image"]["distinct"]) == (3, 2)
    assert list(distinct_images(look_at(part, full=True), SQUARE)) == [((64, 64), 2)]


def test_what_would_be_encoded_counts_made_and_missing_images_but_not_unusable_rows(data):
    part = data([row(), row(), row("")], columns=("image",), made=1, to_make=10)
    assert list(distinct_images(look_at(part), SQUARE)) == [((64, 64), 2 + 2 + 10)]


def test_an_image_that_is_target_and_condition_is_encoded_once(data):
    image = encoded()
    part = data([row(image=image)])
    assert list(distinct_images(look_at(part, full=True), SQUARE)) == [((64, 64), 1)]


# -------------------------------------------------------------------------------------------
# Captions
# -------------------------------------------------------------------------------------------

WORDS = Length("words", lambda texts: [len(text.split()) for text in texts], 3, "the.limit")


def test_captions_are_counted_and_measured_once_each(data):
    asked = []

    def count(texts):
        asked.extend(texts)
        return [len(text.split()) for text in texts]

    part = data(
        [row(["a dog", "one two three four"]), row("a dog"), row("a cat"), row("five " * 5)],
        columns=("image",),
    )
    report = figures(part, lengths=[Length("words", count, 3, "the.limit")])["captions"]
    assert sorted(asked) == ["a cat", "a dog", "five " * 5, "one two three four"]
    assert (report["captions"], report["distinct"]) == (5, 4)
    assert report["per_row"] == {"min": 1, "max": 2}
    assert report["most_repeated"] == [{"caption": "a dog", "times": 2, "row": 0}]
    (length,) = report["lengths"]
    assert [length[name] for name in ("min", "median", "max", "cut")] == [2, 2, 5, 2]
    assert length["cut_captions"] == [
        {"row": 0, "length": 4, "caption": "one two three four"},
        {"row": 3, "length": 5, "caption": "five five five five five"},
    ]


def test_a_huge_caption_is_shown_by_its_beginning(data):
    part = data([row("word " * 100_000)], columns=("image",))
    text = describe(figures(part, lengths=[WORDS]))
    assert "1 is longer than 3 (the.limit), and the rest is cut off:" in text
    assert "row 0: 100,000, 'word word" in text
    assert max(map(len, text.splitlines())) < 120


def test_rows_without_a_caption_get_the_default(data):
    part = data([row(""), row(None), row("own")], columns=("image",), default="a photo")
    report = figures(part)
    assert report["usable_rows"] == 3
    assert report["captions"]["default"] == 2
    assert "2 rows have none of their own and get the default" in describe(report)


def test_rows_that_are_not_there_are_left_out(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    table = ImageTextTable(ImageFolder(tmp_path, ["a.png", "b.png"]), ("image",), None, "a cat")
    part = Part("class images", table, rows=[1], to_make=1)
    report = figures(part)
    assert (report["rows"], report["usable_rows"], report["problems"]) == (1, 1, [])
    assert "1 image that is not there yet would be made before training" in describe(report)
    assert report["captions"]["captions"] == 1


def test_nothing_usable_at_all(data):
    report = figures(data([row(image="gone.png"), row(image="gone.png")]), lengths=[WORDS])
    assert report["usable_rows"] == 0 and report["images"]["image"]["images"] == 0
    assert "none that can be used" in describe(report)


# -------------------------------------------------------------------------------------------


def test_progress_is_told_from_nothing_to_all(data):
    told = []
    part = data([row(str(number)) for number in range(70)], columns=("image",))
    summary(look_at(part, tell=lambda *a: told.append(a)), sizes=SQUARE)
    assert told == [("checking", "row", done, 70) for done in (0, 64, 70)]
