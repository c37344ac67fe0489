"""Keep and compute everything in float32, whatever precision.mixed_precision says.

launcher --recipe flux_controlnet --config my_run.yaml -p examples/variants/fp32_precision.py

To find out whether half precision is to blame; twice the memory. With either recipe.
"""

from hooks import hookimpl


@hookimpl
def apply_precision(models):
    from launcher.training import precision

    return precision.apply(models, precision.Policy.of("no"))
