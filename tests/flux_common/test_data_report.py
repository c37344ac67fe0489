"""What FLUX adds to the report on a data set: lengths in tokens, size and time of encoding."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from flux_common import data_report
from flux_common.pipeline_folder import FLUX1_DEV
from launcher.training.errors import UserError


@pytest.fixture
def part(tmp_path):
    """A data set of the given captions, an image each, of the given colours."""

    def make(captions, colours=None, **options):
        rows = []
        for number, caption in enumerate(captions):
            name = f"{(colours or range(len(captions)))[number]}.png"
            Image.new("RGB", (64, 64)).save(tmp_path / name)
            rows.append(json.dumps({"file_name": name, "text": caption}))
        (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
        return data_report.open_part({"dataset_name": str(tmp_path)}, ["image"], "text", **options)

    return make


@pytest.fixture
def inspect(tiny_flux, tmp_path):
    def look(*parts, **options):
        settings = {
            "pretrained_model_name_or_path": str(tiny_flux),
            "sizes": [(64, 64)],
            "max_sequence_length": 16,
            "mixed_precision": "no",
            "with_empty_prompt": False,
            "cache_dir": tmp_path / "not" / "there",
        }
        return data_report.inspect(parts, **{**settings, **options})

    return look


def dev(part):
    return json.loads((FLUX1_DEV / part / "config.json").read_text())


# -------------------------------------------------------------------------------------------
# Tokens
# -------------------------------------------------------------------------------------------


def test_lengths_are_those_of_the_tokenizers_and_what_is_longer_is_cut(part, inspect, tiny_flux):
    from flux_common.loading import load_tokenizers

    captions = ["a dog", "a very long caption " * 40]
    t5, clip = inspect(part(captions)).figures["parts"][0]["captions"]["lengths"]
    for tokenizer, found in zip(load_tokenizers(str(tiny_flux)), (clip, t5)):
        lengths = [len(tokenizer(caption).input_ids) for caption in captions]
        assert (found["min"], found["max"]) == (min(lengths), max(lengths))
        assert found["cut"] == 1 and found["cut_captions"][0]["row"] == 1
    assert (t5["limit"], t5["limited_by"]) == (16, "data.max_sequence_length")
    assert clip["limit"] == 77


def test_a_caption_of_just_the_limit_is_not_cut(part, inspect):
    report = inspect(part(["a dog"]))
    length = report.figures["parts"][0]["captions"]["lengths"][0]["max"]
    for limit, cut in ((length, 0), (length - 1, 1)):
        found = inspect(part(["a dog"]), max_sequence_length=limit).figures["parts"][0]
        assert found["captions"]["lengths"][0]["cut"] == cut


def test_without_a_pipeline_it_says_so_and_goes_on(part, inspect, tmp_path):
    report = inspect(part(["a dog"]), pretrained_model_name_or_path=str(tmp_path / "none"))
    (length,) = report.figures["parts"][0]["captions"]["lengths"]
    assert (length["unit"], length["max"]) == ("characters", 5)
    first, second = report.figures["notes"]
    assert "measured in characters" in first and "there is no folder" in first
    assert "sizes of FLUX.1-dev for text_encoder, text_encoder_2, vae" in second
    assert report.figures["estimate"]["text"]["bytes"] == 4 * (16 * 4096 + 768)


def test_a_config_without_what_is_needed_is_not_used(part, inspect, tiny_flux, tmp_path):
    import shutil

    folder = tmp_path / "flux"
    shutil.copytree(tiny_flux, folder)
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps({**config, "latent_channels": "16"}))
    report = inspect(part(["a dog"]), pretrained_model_name_or_path=str(folder))
    (note,) = report.figures["notes"]
    assert "FLUX.1-dev for vae, of which" in note


# -------------------------------------------------------------------------------------------
# Size
# -------------------------------------------------------------------------------------------


def test_size_of_the_cache(part, inspect):
    # tiny-flux: d_model and hidden_size 32, 16 latent channels.
    captions = ["a", "b", "a"]
    found = inspect(part(captions)).figures["estimate"]
    assert found["text"]["entries"] == 2 and found["text"]["bytes"] == 2 * (16 * 32 + 32) * 4
    assert found["image"]["entries"] == 3 and found["image"]["bytes"] == 3 * 2 * 16 * 8 * 8 * 4
    assert found["bytes"] == found["text"]["bytes"] + found["image"]["bytes"]
    half = inspect(part(captions), mixed_precision="bf16").figures["estimate"]
    assert half["bytes"] * 2 == found["bytes"]


def test_size_of_the_cache_counts_what_is_different(part, inspect):
    found = inspect(
        part(["a", "a"], colours=[1, 1], made=1), with_empty_prompt=True, with_clip=False
    ).figures["estimate"]
    assert found["text"]["entries"] == 2  # with the empty one
    assert found["text"]["bytes"] == 2 * (16 * 32 * 4 + 77 * 4)
    assert found["image"]["entries"] == 2  # the image, and what is made of it


def test_free_space_is_that_of_the_disk_where_the_cache_would_be(
    part, inspect, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        data_report.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=9)
    )
    text = inspect(part(["a"])).text()
    inspect(part(["a"]), cache_dir=tmp_path / "0.png")
    assert asked == [tmp_path, tmp_path / "0.png"]
    assert f"9 B on the disk of {tmp_path / 'not' / 'there'}, which is not enough" in text


# -------------------------------------------------------------------------------------------
# Time
# -------------------------------------------------------------------------------------------


def test_operations_of_flux1_dev():
    # T5-XXL's encoder has 4,762,310,656 parameters, of which 32128 x 4096 are embeddings and
    # 49 x 4096 scales of norms and 32 x 64 relative positions: the others are matrices.
    matrices = 4_762_310_656 - 32128 * 4096 - 49 * 4096 - 32 * 64
    attention = 24 * 2 * (2 * 512 * 512 * 64 * 64)
    assert data_report.t5_operations(dev("text_encoder_2"), 512) == 2 * 512 * matrices + attention
    # CLIP-L: 12 layers of 12 x 768^2.
    assert data_report.clip_operations(dev("text_encoder"), 77) == (
        2 * 77 * 12 * 12 * 768**2 + 12 * 2 * 2 * 77 * 77 * 768
    )


def test_operations_of_the_vae_grow_with_the_area_but_for_the_attention():
    vae = dev("vae")
    without = {**vae, "mid_block_add_attention": False}
    small, large = (data_report.vae_operations(without, (side, side)) for side in (256, 512))
    assert large == 4 * small
    # The attention at 64 x 64 positions of 512 channels.
    assert data_report.vae_operations(vae, (512, 512)) - large == (
        4 * 2 * 512**2 * 4096 + 2 * 2 * 512 * 4096**2
    )


def test_operations_of_a_vae_that_can_be_counted_by_hand():
    vae = {
        "in_channels": 3, "latent_channels": 1, "block_out_channels": [1, 2],
        "layers_per_block": 1, "mid_block_add_attention": False,
    }  # fmt: skip
    at_full = 27 + (9 + 9)  # conv_in; block 1
    at_half = 9 + (18 + 36 + 2) + 2 * (36 + 36) + 36  # down; block 2 and shortcut; middle; conv_out
    assert data_report.vae_operations(vae, (4, 6)) == 2 * (at_full * 24 + at_half * 6)


def test_times_are_measured_where_they_can_be_and_say_so(part, inspect, tiny_flux):
    about = {"model": str(tiny_flux), "tokens": "16", "dtype": "float32"}
    rates = {"text": {"entries": 10, "seconds": 5, "device": "Ascend", "about": about}}
    report = inspect(part(["a", "b"]), rates=rates)
    found = report.figures["estimate"]
    assert found["text"]["seconds"] == 1.0 and "assumed_tflops" not in found["text"]
    operations = found["image"]["tera_operations"]
    assert found["image"]["seconds"] == pytest.approx(operations / data_report.ASSUMED_TFLOPS)
    assert "1 s at the measured 0.5 s each (Ascend)" in report.text()
    assert "under a second at an assumed 100 TFLOP/s" in report.text()


@pytest.mark.parametrize("other", [{"tokens": "512"}, {"model": "another"}])
def test_what_was_measured_of_others_says_nothing_of_these(part, inspect, tiny_flux, other):
    about = {"model": str(tiny_flux), "tokens": "16"} | other
    rates = {"text": {"entries": 10, "seconds": 5, "device": "Ascend", "about": about}}
    found = inspect(part(["a"]), rates=rates).figures["estimate"]
    assert found["text"]["assumed_tflops"] == data_report.ASSUMED_TFLOPS


def test_a_speed_that_is_given_is_used(part, inspect, tiny_flux):
    about = {"model": str(tiny_flux), "size": "64x64"}
    rates = {"image": {"entries": 10, "seconds": 5, "device": "Ascend", "about": about}}
    report = inspect(part(["a"]), rates=rates, tflops=1e-6)
    found = report.figures["estimate"]["image"]
    assert found["seconds"] == pytest.approx(found["tera_operations"] / 1e-6)
    assert "measured" not in report.text() and "at an assumed 1e-06 TFLOP/s" in report.text()


@pytest.mark.parametrize(
    "rate", [None, [], {}, {"entries": 0, "seconds": 1}, {"entries": "9", "seconds": 1}]
)
def test_rates_that_make_no_sense_are_not_used(part, inspect, rate):
    found = inspect(part(["a"]), rates={"text": rate, "other": 3}).figures["estimate"]
    assert found["text"]["assumed_tflops"] == data_report.ASSUMED_TFLOPS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "under a second"), (90, "90 s"), (300, "5 min"), (7200, "2 h"), (345600, "4 days")],
)
def test_durations(seconds, text):
    assert data_report.duration(seconds) == text


# -------------------------------------------------------------------------------------------
# The parts of a data set
# -------------------------------------------------------------------------------------------


def test_problems_are_one_sentence_for_each_part(part, inspect):
    whole = part(["a", "", None])
    report = inspect(whole)
    (problem,) = report.problems()
    assert problem.startswith("2 of 3 rows of the data set ")
    assert problem.endswith(" cannot be used: 2 x empty caption.")
    assert inspect(part(["a"])).problems() == []


def test_a_folder_with_one_prompt(inspect, tmp_path):
    for name in "ab":
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"")
    folder = data_report.instance_part(
        {"max_train_samples": None}, str(tmp_path), "a sks dog", "image", None
    )
    report = inspect(folder)
    found = report.figures["parts"][0]
    assert (found["rows"], found["usable_rows"]) == (3, 2)
    assert "image 2 (c.png)" in report.text()
    assert report.figures["estimate"]["text"]["entries"] == 1


def test_a_folder_with_its_own_metadata_is_a_data_set(part, inspect, tmp_path):
    part(["one", "two"])
    folder = data_report.instance_part({}, str(tmp_path), None, "image", "text")
    assert inspect(folder).figures["parts"][0]["captions"]["distinct"] == 2


def test_class_images_that_are_missing_are_counted(part, inspect, tmp_path):
    classes = tmp_path / "classes"
    classes.mkdir()
    Image.new("RGB", (64, 64)).save(classes / "mine.png")
    report = inspect(part(["a sks dog"]), data_report.class_part(str(classes), "a dog", 10))
    assert report.figures["samples"] == 10
    assert report.figures["parts"][1]["to_make"] == 9
    assert report.figures["estimate"]["image"]["entries"] == 1 + 10
    assert report.figures["estimate"]["text"]["entries"] == 2
    none = inspect(part(["a"]), data_report.class_part(str(tmp_path / "none"), "a dog", 10))
    # Their prompt is encoded even if none of them is there yet.
    assert none.figures["estimate"]["text"]["entries"] == 2


def test_a_folder_of_class_images_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="which is a file"):
        data_report.class_part(str(tmp_path / "file"), "a dog", 10)
