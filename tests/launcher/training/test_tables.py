"""Data sets are opened from wherever they are, and what is wrong with them is said."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request

import datasets
import huggingface_hub.constants
import pytest
from PIL import Image

from launcher.training.errors import UserError
from launcher.training.tables import find_column, open_table

ROWS = [
    {"image": f"images/{i}.png", "conditioning_image": f"masks/{i}.png", "text": f"caption {i}"}
    for i in range(3)
]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def hub_dataset():
    """A data set as the hub has them: images stored in the table."""
    pictures = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(3)]
    return datasets.Dataset.from_dict(
        {"image": pictures, "text": ["zero", "one", "two"]},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def texts(table):
    return [table.get(row, "text") for row in range(len(table))]


# -------------------------------------------------------------------------------------------
# JSON lines
# -------------------------------------------------------------------------------------------


def test_a_jsonl_file_is_a_table(tmp_path):
    table = open_table(jsonl_for_train=write_lines(tmp_path / "train.jsonl", ROWS))
    assert len(table) == 3
    assert list(table.columns) == ["image", "conditioning_image", "text"]
    assert table.get(2, "image") == "images/2.png"
    assert table.folder == tmp_path
    assert table.where(2) == "row 2 (line 3)"


def test_a_folder_with_metadata_is_a_table(tmp_path):
    write_lines(tmp_path / "metadata.jsonl", ROWS)
    assert texts(open_table(dataset_name=str(tmp_path))) == ["caption 0", "caption 1", "caption 2"]


def test_the_metadata_may_be_in_the_folder_of_the_split(tmp_path):
    write_lines(tmp_path / "train" / "metadata.jsonl", ROWS[:2])
    write_lines(tmp_path / "test" / "metadata.jsonl", ROWS[2:])
    assert len(open_table(dataset_name=str(tmp_path))) == 2
    table = open_table(dataset_name=str(tmp_path), split="test")
    assert len(table) == 1 and table.folder == tmp_path / "test"


def test_an_edited_file_is_read_again(tmp_path):
    path = tmp_path / "metadata.jsonl"
    write_lines(path, ROWS)
    assert texts(open_table(dataset_name=str(tmp_path)))[0] == "caption 0"
    stat = path.stat()
    path.write_text(path.read_text().replace("caption", "legends"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # not even the time tells
    assert texts(open_table(dataset_name=str(tmp_path)))[0] == "legends 0"


def test_blank_lines_and_a_byte_order_mark_do_not_count(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "\xc3\xa9"}\r\n\r\n  \n{"text": "b", "more": 1}')
    table = open_table(jsonl_for_train=str(path))
    assert texts(table) == ["é", "b"]
    assert table.where(1) == "row 1 (line 4)"
    assert list(table.columns) == ["text", "more"]
    assert table.get(0, "more") is None


def test_max_train_samples_keeps_the_first_rows(tmp_path):
    path = write_lines(tmp_path / "metadata.jsonl", ROWS)
    assert texts(open_table(jsonl_for_train=path, max_train_samples=2)) == [
        "caption 0",
        "caption 1",
    ]
    assert len(open_table(jsonl_for_train=path, max_train_samples=10)) == 3
    with pytest.raises(UserError, match="max_train_samples is 0"):
        open_table(jsonl_for_train=path, max_train_samples=0)


def test_json_lines_do_not_need_the_datasets_library(tmp_path):
    write_lines(tmp_path / "metadata.jsonl", ROWS)
    code = (
        "import sys; from launcher.training.dataset import open_table; "
        f"open_table(dataset_name={str(tmp_path)!r}); "
        "sys.exit('datasets' in sys.modules or 'PIL' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_lines_that_are_not_json_objects_are_listed_by_number(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine"}\n{"text": \n[1]\n7\n{"text": "\xe9"}\n')
    with pytest.raises(UserError) as caught:
        open_table(jsonl_for_train=str(path))
    message = str(caught.value)
    assert str(path) in message
    assert "line 2, column 10: Expecting value" in message
    assert "2 x line that is not a JSON object" in message
    assert "line 3: a list" in message and "line 4: a number (7)" in message
    assert "1 x line that is not UTF-8\n    line 5, byte 11" in message


def test_only_the_first_five_of_many_mistakes_are_shown(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("x\n" * 12)
    with pytest.raises(UserError) as caught:
        open_table(jsonl_for_train=str(path))
    message = str(caught.value)
    assert "12 x line that is not JSON" in message
    assert "line 5, " in message and "line 6, " not in message
    assert "... and 7 more" in message


def test_a_json_list_is_not_json_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS, indent=2))
    with pytest.raises(UserError, match="is one JSON list"):
        open_table(jsonl_for_train=str(path))


def test_a_missing_file_and_a_folder_are_no_jsonl(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.jsonl cannot be read: No such file"):
        open_table(jsonl_for_train=str(tmp_path / "nothing.jsonl"))
    with pytest.raises(UserError, match="it is a folder; give it as dataset_name"):
        open_table(jsonl_for_train=str(tmp_path))


def test_a_data_set_without_rows_is_an_error(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n")
    with pytest.raises(UserError, match="is empty: it has no rows"):
        open_table(jsonl_for_train=str(path))


# -------------------------------------------------------------------------------------------
# Through `datasets`
# -------------------------------------------------------------------------------------------


@pytest.fixture
def cache_dir(tmp_path):
    return str(tmp_path / "cache")


def check_hub_table(table, rows=3):
    assert len(table) == rows
    assert list(table.columns) == ["image", "text"]
    assert table.get(1, "text") == "one"
    assert table.get(1, "image")["bytes"].startswith(b"\x89PNG")  # not decoded
    assert table.where(1) == "row 1"


def test_a_folder_of_parquet_files(tmp_path, cache_dir, capfd):
    folder = tmp_path / "data"
    folder.mkdir()
    hub_dataset().to_parquet(folder / "train-00000-of-00001.parquet")
    hub_dataset().select([0]).to_parquet(folder / "test-00000-of-00001.parquet")
    before = files(folder)
    capfd.readouterr()
    check_hub_table(open_table(dataset_name=str(folder), cache_dir=cache_dir))
    check_hub_table(
        open_table(dataset_name=str(folder), cache_dir=cache_dir, max_train_samples=2), rows=2
    )
    assert files(folder) == before  # caches are elsewhere
    assert os.listdir(cache_dir)
    assert capfd.readouterr() == ("", "")  # no progress bars


def test_an_edited_parquet_file_is_read_again(tmp_path, cache_dir):
    folder = tmp_path / "data"
    folder.mkdir()
    hub_dataset().to_parquet(folder / "a.parquet")
    assert len(open_table(dataset_name=str(folder), cache_dir=cache_dir)) == 3
    hub_dataset().select([0]).to_parquet(folder / "a.parquet")
    assert len(open_table(dataset_name=str(folder), cache_dir=cache_dir)) == 1


def test_what_save_to_disk_wrote(tmp_path):
    hub_dataset().save_to_disk(tmp_path / "one")
    before = files(tmp_path)
    check_hub_table(open_table(dataset_name=str(tmp_path / "one")))
    assert files(tmp_path) == before
    datasets.DatasetDict({"train": hub_dataset()}).save_to_disk(tmp_path / "parts")
    check_hub_table(open_table(dataset_name=str(tmp_path / "parts")))
    with pytest.raises(UserError, match="has no split 'test'; it has train"):
        open_table(dataset_name=str(tmp_path / "parts"), split="test")


def test_a_folder_of_arrow_files(tmp_path):
    hub_dataset().save_to_disk(tmp_path / "saved")
    folder = tmp_path / "arrow"
    folder.mkdir()
    for part in ("train-0", "train-1", "test"):
        shutil.copy(next((tmp_path / "saved").glob("*.arrow")), folder / f"{part}.arrow")
    check_hub_table(open_table(dataset_name=str(folder)), rows=6)


def test_damaged_files_say_so(tmp_path, cache_dir, capfd):
    hub_dataset().save_to_disk(tmp_path / "saved")
    hub_dataset().to_parquet(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "a.parquet").write_bytes(content[: len(content) // 2])
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    (tmp_path / "arrow").mkdir()
    (tmp_path / "arrow" / "a.arrow").write_bytes(arrow.read_bytes()[:300])
    (tmp_path / "saved" / "state.json").write_text("{}")
    capfd.readouterr()
    for name in ("parquet", "arrow", "saved"):
        with pytest.raises(UserError, match=f"{name} cannot be loaded: .+ \\(from the datasets"):
            open_table(dataset_name=str(tmp_path / name), cache_dir=cache_dir)
    assert capfd.readouterr().err == ""


def test_a_folder_without_data_says_so(tmp_path, cache_dir):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="doesn't contain any data files"):
        open_table(dataset_name=str(tmp_path / "empty"), cache_dir=cache_dir)


def test_an_image_folder_is_read_as_datasets_reads_it(tmp_path, cache_dir):
    folder = tmp_path / "data"
    rows = [{"file_name": "0.png", "mask_file_name": "m.png", "text": "a"}]
    write_lines(folder / "metadata.jsonl", rows)
    Image.new("RGB", (4, 4)).save(folder / "0.png")
    Image.new("RGB", (4, 4)).save(folder / "m.png")
    ours = open_table(dataset_name=str(folder))
    theirs = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=cache_dir
    )
    for column in ("image", "mask"):
        theirs = theirs.cast_column(column, datasets.Image(decode=False))
        path = ours.folder / ours.get(0, find_column(ours, column))
        assert str(path) == theirs[0][column]["path"]
    assert texts(ours) == theirs["text"][:]


# -------------------------------------------------------------------------------------------
# Names
# -------------------------------------------------------------------------------------------


def test_exactly_one_source_is_given():
    with pytest.raises(UserError, match="neither is set"):
        open_table()
    with pytest.raises(UserError, match="both are set"):
        open_table(dataset_name="a", jsonl_for_train="b")


def test_a_hub_name_reaches_datasets(monkeypatch):
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return hub_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    table = open_table(
        dataset_name="owner/name", dataset_config_name="small", cache_dir="c", split="train"
    )
    check_hub_table(table)
    assert calls == [(("owner/name", "small"), {"split": "train", "cache_dir": "c"})]


def test_without_a_network_a_hub_name_is_refused_at_once(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with pytest.raises(UserError) as caught:
        open_table(dataset_name="fusing/fill50k", cache_dir=str(tmp_path))
    message = str(caught.value)
    assert "'fusing/fill50k'" in message
    assert "no such folder" in message and "hub cannot be reached" in message


def test_a_name_that_the_hub_does_not_have(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise datasets.exceptions.DatasetNotFoundError("Dataset doesn't exist")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=r"no such folder, and the Hugging Face hub has no data"):
        open_table(dataset_name="owner/name")


def test_what_is_neither_a_folder_nor_a_hub_name(tmp_path):
    (tmp_path / "fill50k").mkdir()
    with pytest.raises(UserError, match=r"no such folder \(did you mean '.*fill50k'\?\)"):
        open_table(dataset_name=str(tmp_path / "fil50k"))
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(UserError, match=r"is a file.*give it as jsonl_for_train"):
        open_table(dataset_name=str(tmp_path / "a.jsonl"))


def test_a_configuration_name_is_never_ignored(tmp_path):
    path = write_lines(tmp_path / "metadata.jsonl", ROWS)
    for source in ({"dataset_name": str(tmp_path)}, {"jsonl_for_train": path}):
        with pytest.raises(UserError, match="dataset_config_name is 'small'"):
            open_table(**source, dataset_config_name="small")


def test_columns_are_found_by_both_of_their_names(tmp_path):
    rows = [{"file_name": "a", "mask_file_name": "b", "text": "c"}]
    table = open_table(jsonl_for_train=write_lines(tmp_path / "a.jsonl", rows))
    assert find_column(table, "image") == find_column(table, "file_name") == "file_name"
    assert find_column(table, "mask") == "mask_file_name"
    with pytest.raises(UserError) as caught:
        find_column(table, "txt")
    assert "no column 'txt'; it has 'file_name', 'mask_file_name', 'text'" in str(caught.value)
    assert "Did you mean 'text'?" in str(caught.value)
