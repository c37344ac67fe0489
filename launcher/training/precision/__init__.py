"""What parts are stored in and compute in: set, seen, and checked.

    policy = Policy.of(mixed_precision="bf16")          # the article's policy A
    cast_frozen(transformer, policy.half)
    cast_trained(controlnet, policy.trained, policy.half)

`cast` sets dtypes, `attention` those of FLUX's attention; `graph` reads what a compiled graph
does, and `report` sets the two beside each other.
"""

from launcher.training.precision.cast import (
    Policy,
    activation_dtype,
    apply,
    asked,
    cast_frozen,
    cast_trained,
    dtype_of,
    name_of,
    shrink,
    signature,
)

__all__ = [
    "Policy",
    "activation_dtype",
    "apply",
    "asked",
    "cast_frozen",
    "cast_trained",
    "dtype_of",
    "name_of",
    "shrink",
    "signature",
]
