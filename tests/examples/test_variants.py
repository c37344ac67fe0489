"""Every variant of examples/variants: a short run with it, and what it changes.

The first step's rate is zero and a fresh ControlNet changes nothing, so a variant that leaves loss
and data alone has the first two losses of a run without variants, bit for bit.
"""

import ast
import importlib.util
import json
import re
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.test_run import ROOT, TINY, WEIGHTS, launch, metrics

VARIANTS = ROOT / "examples" / "variants"
FLUX = ROOT / "tests" / "data" / "one-layer-flux"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
RATE = 1e-3
SHORT = {
    "learning_rate": RATE,
    "max_train_steps": 3,
    "lr_scheduler": "constant_with_warmup",
    "lr_warmup_steps": 1,
    "max_train_samples": 4,
    "train_batch_size": 2,
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """start("huber_loss", seed=1): the finished process and the run's folder."""

    def start_run(*variants, **settings):
        settings = {"output_dir": tmp_path_factory.mktemp("run") / "out", **SHORT, **settings}
        process = launch(
            *("--recipe", "flux_controlnet", "--config", TINY),
            *(word for name in variants for word in ("-p", str(VARIANTS / f"{name}.py"))),
            *(f"{name}={value}" for name, value in settings.items()),
        )
        return process, settings["output_dir"]

    return start_run


@pytest.fixture(scope="module")
def run(start):
    """As `start`, for a run that succeeds: its folder."""

    def run_to_the_end(*variants, **settings):
        process, output_dir = start(*variants, **settings)
        assert process.returncode == 0, process.stderr
        return output_dir

    return run_to_the_end


@pytest.fixture(scope="module")
def plain(run):
    """The run without variants."""
    return run()


@pytest.fixture
def module(monkeypatch):
    """module("lion_optimizer"): a variant, imported."""

    def load(variant):
        spec = importlib.util.spec_from_file_location(variant, VARIANTS / f"{variant}.py")
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, variant, loaded)  # where the compiler looks for sources
        spec.loader.exec_module(loaded)
        return loaded

    return load


def losses(output_dir):
    return [line["loss"] for line in metrics(output_dir)]


@pytest.mark.parametrize("path", sorted(VARIANTS.glob("*.py")), ids=lambda path: path.stem)
def test_a_variant_is_one_small_file_with_the_command_that_runs_it(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    documentation = ast.get_docstring(ast.parse(text))
    assert re.search(rf"^launcher --recipe \w+ .*?-p examples/variants/{path.name}\b",
                     documentation, re.M | re.S)  # fmt: skip
    assert f"test_{path.stem}" in {name.partition("__")[0] for name in globals()}


def test_fp32_precision__computes_in_float32_whatever_the_option_says(run, plain):
    output_dir = run("fp32_precision", mixed_precision="fp16")
    # Scaling the loss by a power of two changes no digit of a float32 number that is not tiny.
    assert losses(output_dir) == losses(plain)
    weights, expected = (load_file(folder / WEIGHTS) for folder in (output_dir, plain))
    for name, array in weights.items():
        np.testing.assert_allclose(array, expected[name], atol=1e-4 * RATE, err_msg=name)


@pytest.fixture(scope="module")
def by_lion(run):
    """Two variants at once that touch nothing of each other's; one update at a rate above zero."""
    return run("huber_loss", "lion_optimizer", max_train_steps=2)


def test_huber_loss__pulls_less_at_outliers(by_lion, plain, module):
    variant = module("huber_loss")

    def huber(square):
        return 2 * variant.C * (np.sqrt(square + variant.C**2) - variant.C)

    # Concave in the squared error: its mean is below its value at the mean.
    for found, square in zip(losses(by_lion), losses(plain)[:2], strict=True):
        assert 0.5 * huber(square) < found < huber(square)


def test_huber_loss__is_the_formula(module, graph_mode):
    from mindspore import Tensor

    variant = module("huber_loss")
    rng = np.random.default_rng(0)
    prediction, latents, noise = rng.standard_normal((3, 2, 5, 4)).astype(np.float32)
    weights = np.array([1, 3], np.float32)
    found = variant.HuberLoss.error(None, *map(Tensor, (prediction, latents, noise, weights)))
    error = prediction.astype(np.float64) - (noise - latents)
    expected = 2 * variant.C * (np.sqrt(error**2 + variant.C**2) - variant.C)
    assert float(found) == pytest.approx((weights[:, None, None] * expected).mean(), rel=1e-5)


def test_custom_train_step__updates_twice_and_reports_what_the_first_did(run, plain):
    first, *others = metrics(run("custom_train_step"))
    assert first["loss_after"] == first["loss"] == losses(plain)[0]  # at a rate of zero
    assert all(line["loss_after"] < line["loss"] for line in others)
    # After the second step's first update the loss of its batch is not what it was.
    assert others[0]["loss"] == losses(plain)[1]


def test_edge_condition__has_control_images_of_its_own(run, start, plain):
    output_dir = run("edge_condition", conditioning_image_column="null")
    own, given = losses(output_dir), losses(plain)
    assert own[:2] == given[:2]
    weights = [load_file(folder / WEIGHTS) for folder in (output_dir, plain)]
    moved = [array["controlnet_x_embedder.weight"] for array in weights]
    assert np.any(moved[0]) and not np.array_equal(*moved)

    process, _ = start("edge_condition")
    assert process.returncode == 2
    assert "'conditioning_image', and data.conditioning is edges" in process.stderr


def test_edge_condition__is_the_steepness_of_brightness(module):
    image = np.zeros((6, 8, 3), np.uint8)
    image[:, 4:] = 200
    expected = np.zeros((6, 8, 3), np.uint8)
    expected[:, 3:5] = 255
    np.testing.assert_array_equal(module("edge_condition").edges(image), expected)
    flat = np.full((6, 8, 3), 90, np.uint8)
    assert not np.any(module("edge_condition").edges(flat))


def test_lion_optimizer__moves_every_weight_by_the_rate(by_lion):
    weights = load_file(by_lion / WEIGHTS)
    for name in ("controlnet_blocks.0.weight", "controlnet_blocks.0.bias"):
        # They start at zero, so that nothing decays.
        assert set(np.abs(weights[name]).ravel()) <= {np.float32(0), np.float32(RATE)}, name
        assert np.mean(weights[name] != 0) > 0.9, name


def test_lion_optimizer__is_algorithm_2_of_the_paper(module, graph_mode):
    from mindspore import Parameter, Tensor

    rng = np.random.default_rng(0)
    start, *gradients = rng.standard_normal((4, 3, 5)).astype(np.float32)
    parameter = Parameter(Tensor(start), name="weight")
    optimizer = module("lion_optimizer").Lion([parameter], 0.9, 0.99, 0.1)
    optimizer.learning_rate.set_data(Tensor(0.01))
    expected, momentum = start.astype(np.float64), np.zeros((3, 5))
    for gradient in gradients:
        optimizer((Tensor(gradient),))
        direction = np.sign(0.9 * momentum + 0.1 * gradient)
        expected -= 0.01 * (direction + 0.1 * expected)
        momentum = 0.99 * momentum + 0.01 * gradient
    np.testing.assert_allclose(parameter.asnumpy(), expected, atol=1e-6)


@pytest.fixture(scope="module")
def observed(run):
    return run("loss_average", "step_timer")


def test_loss_average__weighs_the_losses_by_their_age(observed, plain):
    one, two, three = losses(plain)
    averages = [record["loss_average"] for record in metrics(observed)]
    expected = [
        one,
        (0.9 * one + two) / 1.9,
        (0.81 * one + 0.9 * two + three) / 2.71,
    ]
    np.testing.assert_allclose(averages, expected, rtol=1e-12)


def test_step_timer__writes_times_and_changes_nothing(observed, plain):
    assert losses(observed) == losses(plain)
    times = json.loads((observed / "step_times.json").read_text())
    assert times["steps"] == 3
    assert 0 < times["median_s"] <= times["longest_s"]
    assert times["first_s"] > 0


@pytest.fixture(scope="module")
def full_finetune(run):
    return run("full_finetune")


def test_full_finetune__trains_the_transformer(full_finetune, plain):
    # The ControlNet that is left out had no part in the prediction.
    assert losses(full_finetune)[:2] == losses(plain)[:2]
    assert not (full_finetune / "controlnet").exists()
    before, after = (load_file(folder / TRANSFORMER) for folder in (FLUX, full_finetune))
    assert before.keys() == after.keys()
    unmoved = [name for name, array in after.items() if np.array_equal(array, before[name])]
    assert unmoved == []  # where no gradient comes, the weights decay


def test_full_finetune__takes_the_place_of_the_base_model(full_finetune, graph_mode, tmp_path):
    from flux_common.loading import load_transformer

    pipeline = tmp_path / "flux"
    shutil.copytree(FLUX, pipeline)
    shutil.rmtree(pipeline / "transformer")
    shutil.copytree(full_finetune / "transformer", pipeline / "transformer")
    weights = load_file(full_finetune / TRANSFORMER)
    loaded = dict(load_transformer(str(pipeline)).parameters_and_names())
    assert loaded.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(loaded[name].asnumpy(), array, err_msg=name)
    config, base = (
        json.loads((folder / "transformer" / "config.json").read_text())
        for folder in (pipeline, FLUX)
    )
    assert config["_class_name"] == "FluxTransformer2DModel"
    assert {name: base.get(name) for name in config} == {
        **config,
        "_diffusers_version": base["_diffusers_version"],
    }
