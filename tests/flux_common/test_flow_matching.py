import math

import numpy as np
import pytest

from flux_common.flow_matching import loss_weights, sample_density, timestep_indices

UNIFORM = (np.arange(200_000) + 0.5) / 200_000  # an even grid stands for uniform draws


def share_below(u, x):
    return (u < x).mean()


@pytest.mark.parametrize("scheme", ["none", "cosmap", "sigma_sqrt"])
def test_schemes_that_weight_the_loss_draw_uniformly(scheme):
    np.testing.assert_array_equal(sample_density(UNIFORM, scheme), UNIFORM)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 2.0)])
def test_logit_normal_has_the_distribution_of_its_name(mean, std):
    u = sample_density(UNIFORM, "logit_normal", logit_mean=mean, logit_std=std)
    for x in (0.1, 0.5, 0.8):
        # P(sigmoid(z) < x) = Phi((logit(x) - mean) / std)
        z = (math.log(x / (1 - x)) - mean) / std
        assert share_below(u, x) == pytest.approx(0.5 * (1 + math.erf(z / math.sqrt(2))), abs=1e-4)


def test_logit_normal_of_a_draw_of_zero_is_finite():
    assert np.isfinite(sample_density(np.array([0.0]), "logit_normal")).all()


def test_mode_follows_the_formula_of_the_sd3_paper():
    # Equation 20 at a few points, worked out by hand for s = 1.29.
    u = sample_density(np.array([0.0, 0.5, 1.0]), "mode", mode_scale=1.29)
    np.testing.assert_allclose(u, [1.0, 0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(sample_density(UNIFORM, "mode", mode_scale=0.0), 1 - UNIFORM)


def test_mode_at_its_upper_end_stays_inside_the_table():
    u = sample_density(np.array([0.0]), "mode")
    assert u[0] == 1.0
    assert timestep_indices(u, 1000)[0] == 999


def test_indices_count_from_the_noisiest_timestep():
    np.testing.assert_array_equal(
        timestep_indices(np.array([0.0, 0.0009999, 0.001, 0.9999]), 1000), [0, 0, 1, 999]
    )


@pytest.mark.parametrize("scheme", ["none", "logit_normal", "mode"])
def test_schemes_that_shape_the_density_weight_all_samples_alike(scheme):
    np.testing.assert_array_equal(loss_weights(np.array([0.1, 1.0]), scheme), [1, 1])


def test_weights():
    sigmas = np.array([0.5, 1.0], np.float32)
    np.testing.assert_allclose(loss_weights(sigmas, "sigma_sqrt"), [4, 1])
    np.testing.assert_allclose(loss_weights(sigmas, "cosmap"), [4 / math.pi, 2 / math.pi])
    assert loss_weights(sigmas, "cosmap").dtype == np.float32


def test_cosmap_weights_a_uniform_draw_as_a_density_would():
    # The weight integrates to 1 over sigma: it is the density of the paper's equation 21.
    assert loss_weights(UNIFORM, "cosmap").mean() == pytest.approx(1, abs=1e-5)
