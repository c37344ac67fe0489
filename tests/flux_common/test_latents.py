"""Packing and posterior sampling against values from diffusers (tests/data/parity)."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from flux_common.latents import image_ids, normalise, pack, sample_posterior, text_ids

SHIFT, SCALE = 0.1159, 0.3611  # of FLUX.1's VAE


@pytest.fixture(scope="module")
def reference(data_dir):
    return load_file(data_dir / "parity" / "latents.safetensors")


@pytest.mark.parametrize(
    ("image", "packed"), [("pixel", "pixel_latents"), ("control", "control_image")]
)
def test_packed_latents_are_those_of_diffusers(reference, image, packed):
    moments = np.concatenate(
        [reference[f"{image}_moments_mean"], reference[f"{image}_moments_logvar"]], axis=1
    )
    latents = sample_posterior(moments, reference[f"eps_{image}"])
    np.testing.assert_allclose(
        pack(normalise(latents, SHIFT, SCALE)), reference[packed], rtol=0, atol=5e-7
    )


def test_log_variances_are_clamped():
    moments = np.array([1.0, 100.0], np.float32).reshape(1, 2, 1, 1)
    drawn = sample_posterior(moments, np.ones((1, 1, 1, 1), np.float32))
    assert drawn.item() == pytest.approx(1 + np.exp(10.0))


def test_packing_keeps_channel_row_column_order_within_a_token():
    channel, row, column = np.meshgrid(np.arange(3), np.arange(4), np.arange(6), indexing="ij")
    tokens = pack((100 * channel + 10 * row + column)[None])
    assert tokens.shape == (1, 6, 12)
    # The second token is the patch at rows 0-1, columns 2-3.
    np.testing.assert_array_equal(
        tokens[0, 1], [2, 3, 12, 13, 102, 103, 112, 113, 202, 203, 212, 213]
    )


def test_position_ids(reference):
    np.testing.assert_array_equal(image_ids(4, 4), reference["img_ids"])
    # Not square: rows come first, and run slower.
    np.testing.assert_array_equal(
        image_ids(2, 3), [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 1, 2]]
    )
    np.testing.assert_array_equal(text_ids(2), np.zeros((2, 3)))
