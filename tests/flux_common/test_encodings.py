"""Keys: of all that an encoding depends on, and of nothing else."""

import json
import shutil

import numpy as np
import pytest

LENGTH = 16


@pytest.fixture
def plan(graph_mode, tiny_flux, tmp_path):
    """plan(...) -> FluxEncodings of two samples: the second has the first one's caption."""
    from flux_common import loading
    from flux_common.encodings import FluxEncodings, Images
    from launcher.training.freeze import freeze
    from launcher.training.precision import cast_frozen, dtype_of

    def make(
        pipeline=tiny_flux,
        captions=("a dog", "a dog"),
        dtypes=("fp32", "fp32", "fp32"),
        network="fp32",
        with_clip=True,
        length=LENGTH,
        contents=((1, 2), (3, 1)),
        sizes=((32, 32), (32, 32)),
        transform="as it is",
        memory=None,
    ):
        with loading.deferred():
            models = loading.load_encoders(str(pipeline), with_clip=with_clip)
            transformer = loading.load_transformer(str(tiny_flux))
        parts = ("text_encoder_2", "text_encoder", "vae")
        cells = {name: models[name] for name in parts if name in models}
        freeze([*cells.values(), transformer])
        for dtype, cell in zip(dtypes, cells.values()):
            cast_frozen(cell, dtype_of(dtype))
        cast_frozen(transformer, dtype_of(network))
        images = {
            column: Images(
                np.array([[byte] * 32 for byte in column_contents], np.uint8),
                transform,
                np.array(sizes),
                lambda row: None,
            )
            for column, column_contents in zip(("target", "condition"), contents)
        }
        return FluxEncodings(
            models,
            lambda: iter(captions),
            images,
            max_sequence_length=length,
            network=transformer,
            memory=memory,
        )

    return make


@pytest.fixture
def changed(tiny_flux, tmp_path):
    """A copy of the pipeline in which one part's folder was changed."""

    def copy(part, change):
        folder = tmp_path / "copy"
        shutil.copytree(tiny_flux, folder)
        change(folder / part)
        return folder

    return copy


def flip_a_bit(folder):
    (path,) = folder.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def keys_of(encodings):
    return {
        "text": encodings.text("a dog"),
        "target": encodings.image("target", 0),
        "condition": encodings.image("condition", 0),
    }


def test_equal_inputs_have_equal_keys(plan):
    first, second = plan(), plan()
    assert keys_of(first) == keys_of(second)
    np.testing.assert_array_equal(first.keys(), second.keys())
    assert len({len(key) for key in keys_of(first).values()}) == 1 and len(first.text("")) == 32


def test_each_input_counts_once(plan):
    encodings = plan(captions=("a dog", "a cat", "a dog", ""))
    assert encodings.distinct_captions() == ["a dog", "a cat", ""]
    # The image with the content 1 is the first target and the second condition.
    assert len(encodings.keys()) == 3 + 3
    assert encodings.image("target", 0) == encodings.image("condition", 1)
    assert encodings.keys().shape == (6, 32) and encodings.keys().dtype == np.uint8


def test_keys_are_those_of_texts_and_images(plan):
    encodings = plan()
    found = {bytes(key) for key in encodings.keys()}  # noqa: SIM118  (not a mapping)
    texts = {encodings.text("a dog")}
    images = {encodings.image(c, r) for c in ("target", "condition") for r in (0, 1)}
    assert found == texts | images


def test_images_are_grouped_by_size_and_in_the_order_of_rows(plan):
    encodings = plan(contents=((1, 2), (3, 4)), sizes=((32, 64), (32, 32)))
    groups = list(encodings.image_groups())
    assert [places.tolist() for _, _, places in groups] == [[[0, 1], [1, 1]], [[0, 0], [1, 0]]]
    for keys, columns, places in groups:
        for key, (column, row) in zip(keys, places):
            assert bytes(key) == encodings.image(columns[column], row)


@pytest.mark.parametrize(
    ("change", "which"),
    [
        ({"dtypes": ("bf16", "fp32", "fp32")}, {"text"}),
        ({"dtypes": ("fp32", "fp16", "fp32")}, {"text"}),
        ({"dtypes": ("fp32", "fp32", "bf16")}, {"target", "condition"}),
        ({"network": "bf16"}, {"text"}),
        ({"with_clip": False, "dtypes": ("fp32", "fp32")}, {"text"}),
        ({"length": 32}, {"text"}),
        ({"transform": "blurred"}, {"target", "condition"}),
        ({"sizes": ((32, 48), (32, 32))}, {"target", "condition"}),
        ({"contents": ((9, 2), (3, 1))}, {"target"}),
        ({"captions": ("a cat",)}, set()),
    ],
)
def test_what_an_encoding_depends_on_is_in_its_key(plan, change, which):
    before, after = keys_of(plan()), keys_of(plan(**change))
    assert {name for name in before if before[name] != after[name]} == which


@pytest.mark.parametrize(
    ("part", "which"),
    [
        ("text_encoder", {"text"}),
        ("text_encoder_2", {"text"}),
        ("vae", {"target", "condition"}),
        ("transformer", set()),
    ],
)
def test_other_weights_have_other_keys(plan, changed, part, which):
    before = keys_of(plan())
    after = keys_of(plan(pipeline=changed(part, flip_a_bit)))
    assert {name for name in before if before[name] != after[name]} == which


def test_weights_that_are_changed_in_place_have_other_keys(plan, changed, tmp_path):
    pipeline = changed("vae", lambda folder: None)
    memory = tmp_path / "memory"
    before = keys_of(plan(pipeline=pipeline, memory=memory))
    assert keys_of(plan(pipeline=pipeline, memory=memory)) == before
    flip_a_bit(pipeline / "vae")
    assert keys_of(plan(pipeline=pipeline, memory=memory))["target"] != before["target"]


def edit_config(**entries):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries, indent=1))

    return change


def test_a_configuration_counts_and_who_wrote_it_does_not(plan, changed, tmp_path):
    before = keys_of(plan())
    same = changed("vae", edit_config(_diffusers_version="9", _name_or_path="x"))
    assert keys_of(plan(pipeline=same)) == before
    edit_config(force_upcast=False)(same / "vae")
    assert keys_of(plan(pipeline=same))["target"] != before["target"]


def test_another_tokenizer_has_other_keys(plan, changed):
    def change(folder):
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        content["truncation"] = {
            "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0,
        }  # fmt: skip
        path.write_text(json.dumps(content))

    before, after = keys_of(plan()), keys_of(plan(pipeline=changed("tokenizer_2", change)))
    assert {name for name in before if before[name] != after[name]} == {"text"}


def test_the_folder_does_not_count(plan, changed):
    assert keys_of(plan(pipeline=changed("vae", lambda folder: None))) == keys_of(plan())


def test_encodings_are_kept_no_wider_than_what_takes_them(plan):
    import ml_dtypes

    encodings = plan(network="bf16", dtypes=("fp32", "fp32", "fp16"))
    assert encodings.text_dtype == ml_dtypes.bfloat16
    assert encodings.image_dtype == np.float16


def test_a_part_that_was_not_read_from_files_is_known_by_its_values(graph_mode, tiny_flux):
    import mindspore as ms

    from flux_common.encodings import part_digest
    from flux_common.loading import load_vae
    from launcher.training import weights

    vae = load_vae(str(tiny_flux))
    vae.__dict__.pop(weights._ORIGIN)
    before = part_digest(vae, None)
    assert part_digest(vae, None) == before
    parameter = next(iter(vae.get_parameters()))
    parameter.set_data(ms.Tensor(parameter.asnumpy() + 1))
    assert part_digest(vae, None) != before


def test_images_that_nobody_can_say_of_how_they_are_made_are_known_by_their_pixels():
    from flux_common.encodings import made_images

    pixels = [np.zeros((3, 32, 48), np.float32), np.ones((3, 32, 48), np.float32)]
    images = made_images(2, pixels.__getitem__)
    assert images.sizes.tolist() == [[32, 48], [32, 48]]
    assert (images.digests[0] != images.digests[1]).any()
    pixels[1] = pixels[0]
    again = made_images(2, pixels.__getitem__)
    assert (again.digests == images.digests[0]).all()
