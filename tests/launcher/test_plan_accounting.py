"""Bytes of parameters, gradients and optimizer state; the rules beside the real optimizers."""

import numpy as np
import pytest

from launcher.memory_plan.accounting import (
    STATE,
    ZERO_STAGES,
    Memory,
    Part,
    Weight,
    parts,
    training_memory,
)
from launcher.training.optimizers import HALF_PRECISION_PARAMETERS

SHAPES = [(), (6,), (8, 4), (3, 2, 3, 3)]
WEIGHTS = [
    Weight("vae", (10,), "bfloat16"),
    Weight("net", (4, 5), "float32", trained=True, computes_in="bfloat16"),
    Weight("net", (6,), "float32", trained=True, computes_in="float32"),
    Weight("net", (7,), "float16", trained=True, computes_in="float16"),
]


def two_moments(weight):
    return 8 * weight.size


def test_parts_are_summed_by_dtype_and_fate():
    assert parts(WEIGHTS) == [
        Part("vae", 10, "bfloat16", False, 20),
        Part("net", 26, "float32", True, 104),
        Part("net", 7, "float16", True, 14),
    ]


def test_a_step():
    memory = training_memory(WEIGHTS, two_moments, activations=1000)
    assert memory == Memory(
        parameters=20 + 104 + 14, copies=20 * 2, gradients=104 + 14, optimizer=8 * 33,
        activations=1000,
    )  # fmt: skip
    assert memory.total == 138 + 40 + 118 + 264 + 1000


def test_a_moving_average_is_float32_of_what_is_trained_and_is_not_divided():
    one, two = (training_memory(WEIGHTS, two_moments, averaged=value) for value in (False, True))
    assert two.averages == 33 * 4
    assert two.total - one.total == 33 * 4
    assert two.divided(3, 8).averages == 33 * 4


def test_accumulated_gradients_are_float32_and_come_on_top():
    one, two = (
        training_memory(WEIGHTS, two_moments, accumulation_steps=n).gradients for n in (1, 2)
    )
    assert two - one == 33 * 4


def test_zero_divides_state_then_gradients_then_parameters():
    memory = Memory(80, 16, 40, 160, activations=5, encoders=3)
    assert [memory.divided(stage, 8) for stage in ZERO_STAGES] == [
        memory,
        Memory(80, 16, 40, 20, 5, 3),
        Memory(80, 16, 5, 20, 5, 3),
        Memory(10, 2, 5, 20, 5, 3),
    ]


def test_unknown_activations_are_left_out_of_the_total():
    assert Memory(1, 2, 3, 4).total == 10


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", STATE)
def test_the_rules_are_the_state_of_the_real_optimizers(graph_mode, name, dtype):
    import mindspore as ms

    from launcher.training.optim import build_optimizer

    if dtype != "float32" and name not in HALF_PRECISION_PARAMETERS:
        pytest.skip(f"{name} takes float32 only")
    for shape in SHAPES[1:]:
        value = ms.Tensor(np.ones(shape, np.float32)).astype(getattr(ms, dtype))
        parameter = ms.Parameter(value, name="weight")
        optimizer = build_optimizer(
            name, [parameter], beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.1
        )
        state = {
            p.name: 4 * int(np.prod(p.shape))
            for p in optimizer.get_parameters()
            if p is not parameter and p.shape not in ((), (1,))
        }
        assert all(p.dtype == ms.float32 for p in optimizer.get_parameters() if p.name in state)
        assert STATE[name](Weight("net", shape, dtype, trained=True)) == sum(state.values()), shape


def test_every_optimizer_that_can_be_chosen_has_a_rule():
    from typing import get_args, get_type_hints

    from launcher.sections import OptimizerSection

    assert set(STATE) == set(get_args(get_type_hints(OptimizerSection)["name"]))


@pytest.mark.parametrize("name", STATE)
def test_the_state_of_any_optimizer_is_weighed_on_stand_ins(graph_mode, name):
    from types import SimpleNamespace

    from launcher.memory_plan.survey import _Measured
    from launcher.training.optim import build_optimizer

    def build(config, parameters):
        return build_optimizer(name, parameters, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.1)

    measured = _Measured(SimpleNamespace(build_optimizer=build), None)
    for shape in ((1000,), (512, 512), (64, 64, 3, 3)):
        weight = Weight("net", shape, "float32", trained=True)
        # Of factored states the small matrix of a stand-in says a little too much.
        tolerance = 0.2 if name == "came" else 0
        assert measured(weight) == pytest.approx(STATE[name](weight), rel=tolerance), shape
