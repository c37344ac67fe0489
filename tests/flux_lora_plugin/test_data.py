"""The subject's images and captions, the class's images."""

import json

import numpy as np
import pytest
from PIL import Image

from flux_lora_plugin.data import CLASS, INSTANCE, build_dreambooth_dataset
from launcher.training.errors import UserError
from launcher.training.images import load_rgb, resize_and_crop, to_float

SOURCE = dict.fromkeys(
    ("dataset_name", "dataset_config_name", "jsonl_for_train", "cache_dir", "max_train_samples")
)
PROMPT = "a photo of sks dog"


def save(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def dog(tmp_path):
    return save(tmp_path / "dog", "b.png", "a.jpg", "c.webp")


def build(folder=None, **options):
    given = {"sizes": [(32, 32)], "source": SOURCE, "instance_prompt": PROMPT, **options}
    return build_dreambooth_dataset(instance_data_dir=folder and str(folder), **given)


def test_a_folder_of_images_with_one_prompt(dog):
    (dog / "a.txt").write_text("notes")
    (dog / ".hidden.png").write_text("")
    dataset = build(dog)
    assert len(dataset) == 3
    sample = dataset[1]
    assert sample.captions == (PROMPT,)
    expected = to_float(resize_and_crop(load_rgb(dog / "b.png"), 32, 32))
    np.testing.assert_array_equal(sample.images[INSTANCE], expected)


def test_only_the_first_images(dog):
    assert len(build(dog, source={**SOURCE, "max_train_samples": 2})) == 2


def test_captions_of_a_data_set_and_the_prompt_where_one_lacks(dog):
    rows = [{"image": "a.jpg", "text": ["one", "two"]}, {"image": "b.png", "text": ""}]
    (dog / "metadata.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"image": "c.webp"}])))
    for options in ({"source": {**SOURCE, "dataset_name": str(dog)}}, {"folder": dog}):
        dataset = build(caption_column="text", **options)
        captions = [dataset.captions(i) for i in range(3)]
        assert captions == [("one", "two"), (PROMPT,), (PROMPT,)]
    assert build(dog).captions(0) == (PROMPT,)  # the column was not asked for
    with pytest.raises(UserError, match=r"2 x unusable caption"):
        build(dog, caption_column="text", instance_prompt=None)


def test_class_images_go_beside_instance_images(dog, tmp_path):
    classes = save(tmp_path / "classes", "x.png", "y.png")
    given = {"class_data_dir": str(classes), "class_prompt": "a dog"}
    dataset = build(dog, class_images={**given, "num_class_images": 5})
    assert len(dataset) == 5  # three class images are to be made
    assert [dataset.row(INSTANCE, i) for i in range(5)] == [0, 1, 2, 0, 1]
    assert [dataset.row(CLASS, i) for i in range(5)] == [0, 1, 2, 3, 4]
    fewer = build(dog, class_images={**given, "num_class_images": 1})
    assert len(fewer) == 3
    assert set(fewer[2].images) == {INSTANCE, CLASS}
    expected = to_float(resize_and_crop(load_rgb(classes / "x.png"), 32, 32))
    np.testing.assert_array_equal(fewer[2].images[CLASS], expected)


def test_class_images_that_are_there_are_checked(dog, tmp_path):
    classes = save(tmp_path / "classes", "x.png")
    (classes / "y.png").write_bytes(b"no image")
    given = {"class_data_dir": str(classes), "class_prompt": "a dog", "num_class_images": 9}
    with pytest.raises(UserError, match=r"image 9 \(y.png\)|image \d+ \(y.png\)"):
        build(dog, class_images=given)


def test_folders_that_cannot_be_used(dog, tmp_path):
    with pytest.raises(UserError, match=r"instance_data_dir is .*not there.*Did you mean '.*dog'"):
        build(tmp_path / "dogs")
    with pytest.raises(UserError, match="which is a file"):
        build(dog / "b.png")
    with pytest.raises(UserError, match=r"a folder without images. Its subfolder 'dog' has some"):
        build(tmp_path)
    (dog / "d.heic").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"image 3 \(d.heic\)"):
        build(dog)


def test_with_several_sizes_each_image_has_the_nearest_one(dog, tmp_path):
    tall = Image.open(dog / "b.png").resize((40, 50))
    tall.save(dog / "b.png")
    sizes = [(32, 48), (48, 32)]
    dataset = build(dog, sizes=sizes)
    assert dataset.groups.tolist() == [0, 1, 0]
    assert [dataset.bucket(i) for i in range(3)] == [(32, 48), (48, 32), (32, 48)]
    assert [dataset[i].images[INSTANCE].shape for i in (0, 1)] == [(3, 32, 48), (3, 48, 32)]
    assert build(dog).groups is None
    given = {"class_data_dir": str(tmp_path), "class_prompt": "a dog", "num_class_images": 2}
    with pytest.raises(ValueError, match="class images beside instances of the sizes"):
        build(dog, sizes=sizes, class_images=given)
