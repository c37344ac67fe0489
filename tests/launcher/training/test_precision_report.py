"""What a report sees in compiled graphs, and what it refuses."""

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("graph_mode")

IMAGES = np.linspace(-1, 1, 2 * 3 * 16, dtype=np.float32).reshape(2, 3, 4, 4)
EMULATED = "bfloat16 (emulated)"


@pytest.fixture(autouse=True)
def attention_as_it_was():
    """`attend_in` changes MindONE."""
    from launcher.training.precision.attention import attend_in

    yield
    attend_in(None)


def make(cast, attention=None, trained=("part",)):
    """(loss, parts), cast by `cast(part, head)`, which is given the parts after freezing."""
    from launcher.training.precision import activation_dtype
    from tests.launcher.training import precision_cells as cells

    part = cells.Part(*([] if attention is None else [attention]))
    parts = {"part": part, "head": cells.Head()}
    for name, cell in parts.items():
        for parameter in cell.get_parameters():
            parameter.requires_grad = name in trained
    cast(**parts)
    loss = cells.Loss(part, parts["head"], activation_dtype(part))
    return loss, parts


def report_on(loss, parts):
    from launcher.training.precision.graph import trace
    from launcher.training.precision.report import Report

    report = Report()
    report.add(parts)
    report.observe([trace(loss, [IMAGES])])
    return report


def cast_to(name, trained="fp32", attention=None):
    def cast(part, head):
        from launcher.training.precision import cast_frozen, cast_trained, dtype_of

        attend = None if attention is None else dtype_of(attention)
        cast_trained(part, dtype_of(trained), dtype_of(name), attention=attend)
        cast_frozen(head, dtype_of(name))

    return cast


def problems(report, loss_scaling=True, optimizer=None):
    return report.problems(loss_scaling=loss_scaling, optimizer=optimizer)


@pytest.mark.parametrize(
    ("name", "trained", "dtype"),
    [
        ("no", "fp32", "float32"),
        ("fp16", "fp32", "float16"),
        ("fp16", "fp16", "float16"),
        ("bf16", "fp32", EMULATED),
        ("bf16", "bf16", EMULATED),
    ],
)
def test_every_kind_of_operator_is_seen(name, trained, dtype):
    report = report_on(*make(cast_to(name, trained)))
    part, head = report.parts["part"], report.parts["head"]
    assert part.observed("matmul") == {dtype: 4}  # not the products of the substitutes
    assert part.observed("convolution") == {dtype: 1}
    # Attention of cells that launcher.cpu.bf16 does not know is emulated in its products' inputs.
    assert part.observed("attention").keys() <= {dtype, "float32" if dtype == EMULATED else dtype}
    assert part.observed("output") == {dtype: 1}
    norms = part.observed("normalisation")
    assert sum(norms.values()) == 2 and norms.keys() <= {dtype, "float32"}
    assert head.observed("matmul") == head.observed("output") == {dtype: 1}
    assert problems(report) == []


def test_the_training_step_shows_what_its_forward_pass_does():
    """The step's graph has the backward pass and the update in it, which are no part's."""
    from launcher.training.optim import AdamW
    from launcher.training.precision.report import Report
    from launcher.training.step import TrainStep, dynamic_loss_scaler

    loss, parts = make(cast_to("fp16"))
    alone = report_on(loss, parts)
    optimizer = AdamW(loss.trainable_params())
    for steps in (1, 2):
        step = TrainStep(
            loss, optimizer, accumulation_steps=steps, loss_scaler=dynamic_loss_scaler()
        )
        report = Report()
        report.add(parts)
        report.observe_compiled(step.compile([IMAGES]))
        assert report.as_json() == alone.as_json()
        assert problems(report, optimizer=optimizer) == []


def test_what_was_compiled_is_what_runs():
    from launcher.training.optim import AdamW
    from launcher.training.step import TrainStep

    loss, _ = make(cast_to("no"))
    step = TrainStep(loss, AdamW(loss.trainable_params()))
    cell = step.compile([IMAGES])
    assert len(cell.compile_cache) == 1
    assert step([[IMAGES]], 1e-3)[0] > step([[IMAGES]], 1e-3)[0]
    assert len(cell.compile_cache) == 1  # no second graph


def test_parameters_are_counted_by_dtype():
    from tests.launcher.training.precision_cells import Part

    report = report_on(*make(cast_to("fp16")))
    count = sum(p.size for p in Part().get_parameters())
    assert report.parts["part"].stored == {"float32": (count, 4 * count)}
    assert report.parts["part"].trained == {"float32": (count, 4 * count)}
    assert report.parts["head"].stored == {"float16": (3, 6)}
    assert report.parts["head"].trained == {}


def test_the_table_has_a_column_a_part():
    lines = report_on(*make(cast_to("bf16"))).table().splitlines()
    rows = {line[:14].strip(): line[14:].split("  ") for line in lines}
    rows = {name: [cell.strip() for cell in cells if cell.strip()] for name, cells in rows.items()}
    assert rows[""] == ["part", "head"]
    assert rows["parameters"] == ["float32", "bfloat16"]
    assert rows["trained"] == ["all", "frozen"]
    assert rows["computation"] == rows["matmuls"] == [EMULATED, EMULATED]
    assert rows["convolutions"] == [EMULATED, "-"]


# What was observed is not what was asked for


def test_a_cell_that_was_cast_by_hand_is_caught():
    import mindspore as ms

    loss, parts = make(cast_to("fp16"))
    parts["part"].conv.to_float(ms.float32)
    (problem,) = problems(report_on(loss, parts))
    assert problem.startswith("convolutions of part should compute in float16, as apply_precision")
    assert "they compute in float32: conv. Cast" in problem


def test_a_parameter_that_was_cast_by_hand_is_caught():
    import mindspore as ms

    loss, parts = make(cast_to("no"))
    parts["head"].linear.to_float(ms.float16)
    found = problems(report_on(loss, parts))
    assert [f.partition(" should")[0] for f in found] == ["matmuls of head", "output of head"]
    assert all("in float32, as apply_precision asked" in f for f in found)


def test_an_attention_that_silently_runs_in_float16_is_caught():
    from tests.launcher.training.precision_cells import SilentlyNarrow

    (problem,) = problems(report_on(*make(cast_to("no"), SilentlyNarrow)))
    assert problem.startswith("attention of part should compute in float32")
    assert "compute in float16: what comes before attention.to_out." in problem


@pytest.mark.parametrize("attention", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["no", "fp16", "bf16"])
def test_attention_computes_in_what_was_chosen(name, attention):
    report = report_on(*make(cast_to(name, attention=attention)))
    expected = {"fp32": "float32", "fp16": "float16", "bf16": EMULATED}[attention]
    assert report.parts["part"].observed("attention").keys() == {expected}
    assert problems(report) == []


def test_a_cell_may_be_cast_by_itself():
    def cast(part, head):
        import mindspore as ms

        from launcher.training.precision import cast_trained

        cast_to("fp16")(part, head)
        cast_trained(part.conv, ms.float32, ms.float32)

    report = report_on(*make(cast))
    assert report.parts["part"].observed("convolution") == {"float32": 1}
    assert report.parts["part"].observed("matmul") == {"float16": 4}
    assert problems(report) == []


def test_what_nobody_asked_for_is_shown_and_not_judged():
    report = report_on(*make(lambda part, head: None))
    assert report.parts["part"].asked_for == "not said"
    assert problems(report) == []


# What would train badly


def optimizer_of(parts):
    from mindspore import nn

    return nn.SGD(list(parts["part"].get_parameters()), 1.0)


def report_without_graphs(parts):
    from launcher.training.precision.report import Report

    report = Report()
    report.add(parts)
    return report


@pytest.mark.parametrize(("name", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_trained_half_precision_needs_an_optimizer_for_it(name, dtype):
    from launcher.training.optim import build_optimizer

    _, parts = make(cast_to(name, trained=name))
    report = report_without_graphs(parts)
    (problem,) = problems(report, optimizer=optimizer_of(parts))
    count = sum(p.size for p in parts["part"].get_parameters())
    assert f"{count} trained parameters of part are stored in {dtype}" in problem
    assert "the optimizer SGD updates parameters in their own dtype" in problem
    for choice in ("adamw_bf16", "adamw_upcast"):
        assert choice in problem
        constants = dict(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0)
        right = build_optimizer(choice, list(parts["part"].get_parameters()), **constants)
        assert problems(report, optimizer=right) == []


def test_float16_needs_a_scaled_loss():
    _, parts = make(cast_to("fp16"))
    report = report_without_graphs(parts)
    assert problems(report, loss_scaling=True) == []
    found = problems(report, loss_scaling=False)
    assert [f.partition(" and")[0] for f in found] == [
        "part computes in float16,",
        "head computes in float16,",
    ]


def test_float16_that_nobody_asked_for_needs_one_too():
    import mindspore as ms

    loss, parts = make(lambda part, head: None)
    parts["head"].to_float(ms.float16)
    (problem,) = problems(report_on(loss, parts), loss_scaling=False)
    assert problem.startswith("head computes in float16")


def test_what_gradients_do_not_pass_through_needs_none():
    from launcher.training.precision.report import Report

    _, parts = make(cast_to("fp16"))
    report = Report()
    report.add(parts, differentiated=False)
    assert problems(report, loss_scaling=False) == []


def test_trained_parameters_in_a_frozen_part_are_refused():
    _, parts = make(cast_to("no"), trained=("part", "head"))
    (problem,) = problems(report_without_graphs(parts))
    assert problem.startswith("2 parameters of head are trained (linear.weight, linear.bias)")
    assert "configure_trainable" in problem and "cast_trained" in problem


def test_a_trained_cell_of_a_frozen_part_is_not():
    """As adapters are."""

    def cast(part, head):
        import mindspore as ms

        from launcher.training.precision import cast_frozen, cast_trained

        for name, parameter in part.parameters_and_names():
            parameter.requires_grad = name.startswith("proj_out.")
        cast_frozen(part, ms.float16)
        cast_trained(part.proj_out, ms.float32, ms.float16)
        cast_frozen(head, ms.float16)

    _, parts = make(cast)
    report = report_without_graphs(parts)
    assert report.parts["part"].trained == {"float32": (18, 72)}
    assert problems(report) == []


def test_a_graph_that_calls_python_is_noted_and_not_judged():
    import mindspore as ms

    from launcher.training.precision.report import Report
    from tests.launcher.training.precision_cells import CallsPython

    cell = CallsPython()
    assert cell(ms.Tensor(IMAGES)).shape == IMAGES.shape
    report = Report()
    report.add({"part": cell})
    report.observe_compiled(cell)
    assert "a graph of CallsPython could not be looked into" in report.table().splitlines()[-1]
    assert problems(report) == []


def test_a_report_does_not_keep_parts_in_memory():
    import gc
    import weakref

    loss, parts = make(cast_to("no"))  # not compiled: MindSpore would keep it for a while
    report = report_without_graphs(parts)
    weight = weakref.ref(parts["head"].linear.weight)
    report.release()
    del loss, parts
    gc.collect()
    assert weight() is None
    assert report.parts["head"].stored == {"float32": (3, 12)}
