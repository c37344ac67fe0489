import numpy as np
import pytest

from tests.launcher.cpu.functions import FUNCTIONS


@pytest.fixture(scope="session")
def reference(data_dir):
    """What torch computed; written by tests/data/cpu/make_reference.py."""
    with np.load(data_dir / "cpu" / "reference.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def run_functions(graph_mode, reference):
    """dtype name -> {function: (output, gradients in the order of the reference's inputs)}."""
    import mindspore as ms

    from tests.launcher.cpu import cells

    def run(dtype_name):
        dtype = getattr(ms, dtype_name)

        def saved(key):
            return ms.Tensor(reference[key])

        mask = np.array([[1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], bool)
        tables = saved("table/cos"), saved("table/sin")
        network = cells.Functions(*tables, ms.Tensor(mask))
        parameters = network.parameters_dict()
        inputs, owners = [], []
        for name in FUNCTIONS:
            layer = cells.LAYER_INPUTS.get(name, ())
            count = sum(key.startswith(f"function/{name}/in") for key in reference)
            values = [saved(f"function/{name}/in{i}").astype(dtype) for i in range(count)]
            for parameter, value in zip(reversed(layer), reversed(values)):
                parameters[parameter].set_dtype(dtype)
                parameters[parameter].set_data(value)
            inputs += values[: count - len(layer)]
            owners += [name] * (count - len(layer))
        cotangents = tuple(saved(f"function/{name}/cotangent") for name in FUNCTIONS)
        trained = ms.ParameterTuple(parameters.values())
        names = list(parameters)
        step = ms.value_and_grad(
            cells.WeightedSum(network, cotangents),
            grad_position=tuple(range(len(inputs))),
            weights=trained,
            has_aux=True,
        )
        (_, outputs), (input_grads, weight_grads) = step(*inputs)
        grads = {name: [] for name in FUNCTIONS}
        for owner, grad in zip(owners, input_grads):
            grads[owner].append(grad)
        of_parameter = dict(zip(names, weight_grads))
        for name, layer in cells.LAYER_INPUTS.items():
            grads[name] += [of_parameter[parameter] for parameter in layer]
        return {
            name: (as_float32(out), [as_float32(grad) for grad in grads[name]])
            for name, out in zip(FUNCTIONS, outputs)
        }

    results = {}

    def cached(dtype_name):
        if dtype_name not in results:
            results[dtype_name] = run(dtype_name)
        return results[dtype_name]

    return cached


def as_float32(tensor):
    import mindspore as ms

    return tensor.astype(ms.float32).asnumpy()
