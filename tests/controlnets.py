"""ControlNets for tests."""

import numpy as np


def fill_zero_layers(controlnet):
    """Values for the layers that start at zero, so that gradients reach every parameter.

    A function of the layers' order and shapes; benchmarks/reference/make_bf16_reference.py fills
    torch's ControlNet with the same.
    """
    import mindspore as ms

    generator = np.random.default_rng(1)
    for name, parameter in controlnet.parameters_and_names():
        if name.startswith("controlnet_"):
            value = 0.1 * generator.standard_normal(parameter.shape)
            parameter.set_data(ms.Tensor(value.astype(np.float32)))
