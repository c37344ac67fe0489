"""The optimizers, by what they do to parameters."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from launcher.training.errors import UserError
from launcher.training.optim import build_optimizer
from launcher.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("graph_mode")

NAMES = ("tall", "wide", "conv", "gamma", "bias")
OPTIONS = dict(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.1)
CLIP = 1.0


class Pull(nn.Cell):
    """sum((parameter - target)**2) / 2: the gradient is the difference."""

    def __init__(self, start):
        super().__init__()
        parameters = [ms.Parameter(ms.Tensor(start[name]), name=name) for name in NAMES]
        self.parameters = ms.ParameterTuple(parameters)

    def construct(self, *targets):
        loss = 0
        for parameter, target in zip(self.parameters, targets):
            loss += ops.square(parameter - target).sum() / 2
        return loss


@pytest.fixture(scope="module")
def reference(data_dir):
    """See tests/data/make_optimizers.py."""
    with np.load(data_dir / "optimizers.npz") as file:
        return dict(file)


def run(reference, optimizer_name, **options):
    """A hundred clipped steps; parameters after 1, 10 and 100 by name, clipped steps, optimizer."""
    loss = Pull({name: reference[f"start/{name}"] for name in NAMES})
    optimizer = build_optimizer(optimizer_name, list(loss.parameters), **OPTIONS, **options)
    step = TrainStep(loss, optimizer, max_grad_norm=CLIP)
    kept, clipped = {}, 0
    for t, rate in enumerate(reference["rates"]):
        targets = [reference[f"targets/{name}"][t] for name in NAMES]
        _, norm, applied = step([targets], float(rate))
        assert applied
        clipped += norm > CLIP
        if t + 1 in (1, 10, 100):
            kept |= {f"{p.name}/{t + 1}": p.asnumpy().copy() for p in loss.parameters}
    return kept, clipped, optimizer


def worst(kept, expected):
    """The largest relative error of a parameter: norm of the difference over the norm."""
    return max(
        np.linalg.norm(value - expected(name)) / np.linalg.norm(expected(name))
        for name, value in kept.items()
    )


@pytest.mark.parametrize(
    "name, same_as",
    [
        ("adamw", "adamw"),
        ("adamw_bf16", "adamw"),
        ("adamw_upcast", "adamw"),
        ("came", "came"),
        ("muon", "muon"),
    ],
)
def test_float32_parameters_equal_the_reference_over_a_hundred_clipped_steps(
    reference, name, same_as
):
    kept, clipped, _ = run(reference, name)
    assert 20 < clipped < 80
    assert worst(kept, lambda key: reference[f"{same_as}/{key}"]) < 1e-6


def test_adam_weight_decay_has_no_bias_correction_and_spares_gamma(reference):
    kept, _, _ = run(reference, "adam_weight_decay")
    parameters = {name: reference[f"start/{name}"].astype(np.float64) for name in NAMES}
    m = dict.fromkeys(NAMES, 0.0)
    v = dict.fromkeys(NAMES, 0.0)
    expected = {}
    for t, lr in enumerate(reference["rates"].astype(np.float64)):
        gradients = {name: parameters[name] - reference[f"targets/{name}"][t] for name in NAMES}
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        for name, gradient in gradients.items():
            gradient = gradient * min(1, CLIP / (norm + 1e-6))
            m[name] = 0.9 * m[name] + 0.1 * gradient
            v[name] = 0.999 * v[name] + 0.001 * gradient**2
            decay = 0 if name == "gamma" else 0.1
            move = m[name] / (np.sqrt(v[name]) + 1e-8) + decay * parameters[name]
            parameters[name] = parameters[name] - lr * move
            expected[f"{name}/{t + 1}"] = parameters[name]
    # Its kernel forms 1 - 0.999 in float32, 1e-5 off.
    assert worst(kept, expected.get) < 2e-5


#: Where a step of 1e-3 is less than half the distance to the next number.
HALVES = {"bfloat16": 1.0, "float16": 8.0}


def hundred_steps_down(name, gradient_dtype=ms.float32, **options):
    """Steps of 1e-3 under a constant gradient; the change of each parameter, and the optimizer."""
    parameters = [
        ms.Parameter(ms.Tensor(np.full((40, 50), start), getattr(ms, dtype)), name=dtype)
        for dtype, start in HALVES.items()
    ]
    optimizer = build_optimizer(name, parameters, **(OPTIONS | {"weight_decay": 0.0}), **options)
    optimizer.learning_rate.set_data(ms.Tensor(1e-3, ms.float32))
    gradients = tuple(ms.Tensor(np.ones((40, 50)), gradient_dtype) for _ in parameters)
    for _ in range(100):
        optimizer(gradients)
    return {p.name: p.astype(ms.float32).asnumpy() - HALVES[p.name] for p in parameters}, optimizer


def test_rounded_to_nearest_half_precision_stays_where_it_is():
    changes, _ = hundred_steps_down("adamw_upcast")
    for change in changes.values():
        np.testing.assert_array_equal(change, 0)


def test_rounded_stochastically_half_precision_arrives_on_average_and_repeats():
    options = dict(stochastic_rounding=True, seed=3)
    changes, optimizer = hundred_steps_down("adamw_upcast", **options)
    assert int(optimizer.global_step[0]) == 100
    for change in changes.values():
        # Each step moves by 2**-8 with a probability of about 1/4: 0.017 over a hundred.
        assert change.mean() == pytest.approx(-0.1, abs=4 * 0.017 / np.sqrt(change.size))
        assert 0.01 < change.std() < 0.025
    again, _ = hundred_steps_down("adamw_upcast", **options)
    for name, change in changes.items():
        np.testing.assert_array_equal(change, again[name])
    other, _ = hundred_steps_down("adamw_upcast", stochastic_rounding=True, seed=4)
    for name, change in changes.items():
        assert (change != other[name]).mean() > 0.5


@pytest.mark.parametrize("gradient_dtype", [ms.float32, ms.bfloat16])
def test_a_master_copy_arrives_exactly(gradient_dtype):
    changes, optimizer = hundred_steps_down("adamw_bf16", gradient_dtype)
    for half, master in zip(optimizer.half_parameters, optimizer.half_masters):
        assert master.dtype == ms.float32
        np.testing.assert_allclose(master.asnumpy(), HALVES[half.name] - 0.1, rtol=2e-6)
        rounded = master.astype(half.dtype).astype(ms.float32).asnumpy()
        np.testing.assert_array_equal(changes[half.name], rounded - HALVES[half.name])
        assert (changes[half.name] < -0.09).all()


STATE = {
    "adamw": {"adamw_m", "adamw_v"},
    "adamw_bf16": {"adamw_m", "adamw_v"},
    "adamw_upcast": {"adamw_m", "adamw_v"},
    "came": {"came_m", "came_row", "came_column", "came_residual_row", "came_residual_column"},
    "muon": {"muon_momentum"},
}


@pytest.mark.parametrize("name", STATE)
def test_the_state_is_parameters_of_the_optimizer_named_after_the_trained_ones(name):
    parameters = [ms.Parameter(ms.Tensor(np.ones((2, 3)), ms.float32), name="layer.weight")]
    optimizer = build_optimizer(name, parameters, **OPTIONS)
    found = {p.name: p for p in optimizer.get_parameters()}
    assert {f"{prefix}.layer.weight" for prefix in STATE[name]} <= set(found)
    assert not any(p.requires_grad for n, p in found.items() if n.split(".")[0] in STATE[name])
    assert "layer.weight" in found  # by its own name, not renamed
    assert len(found) == len(list(optimizer.get_parameters()))


def test_halves_of_the_state_are_float32_and_named_after_their_parameters():
    parameters = [ms.Parameter(ms.Tensor(np.ones((2, 3)), ms.bfloat16), name="layer.weight")]
    optimizer = build_optimizer("adamw_bf16", parameters, **OPTIONS)
    state = {p.name: p.dtype for p in optimizer.get_parameters() if p.name != "layer.weight"}
    assert "master.layer.weight" in state
    assert {dtype for n, dtype in state.items() if "layer" in n} == {ms.float32}


@pytest.mark.parametrize("name", ["adamw", "adam_weight_decay", "came", "muon"])
def test_half_precision_is_refused_by_those_that_would_lose_updates(name):
    parameters = [ms.Parameter(ms.Tensor(np.ones(3), ms.float16), name="layer.bias")]
    with pytest.raises(UserError, match=r"layer\.bias.*adamw_bf16 or adamw_upcast"):
        build_optimizer(name, parameters, **OPTIONS)


def test_muon_orthogonalizes_matrices_and_nothing_else():
    from launcher.training.optimizers.muon import orthogonalize

    matrix = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    result = ms.jit(orthogonalize)(ms.Tensor(matrix)).asnumpy()
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    values = np.diag(left.T @ result @ right.T)
    np.testing.assert_allclose(result, left * values @ right, atol=1e-5)  # the same vectors
    assert values.min() > 0.6 and values.max() < 1.3

    shapes = {"matrix": (4, 3), "conv": (4, 3, 2, 2), "bias": (4,)}
    parameters = [
        ms.Parameter(ms.Tensor(np.ones(s), ms.float32), name=n) for n, s in shapes.items()
    ]
    optimizer = build_optimizer("muon", parameters, **OPTIONS)
    assert [p.name for p in optimizer.matrices] == ["matrix"]
    assert [p.name for p in optimizer.adamw.parameters] == ["conv", "bias"]
