"""What is tested of functions and layers: the names of their cases in tests/data/cpu. Apart from
the cells, so that tests can be named without importing a framework."""

FUNCTIONS = (
    "gelu_tanh",
    "gelu_erf",
    "layer_norm",
    "layer_norm_plain",
    "rms_norm",
    "rms_norm_long",
    "linear",
    "conv2d",
    "pad",
    "mse_loss",
    "attention",
    "attention_scale",
    "attention_keep_mask",
    "attention_added_mask",
    "attention_causal",
    "rotate",
    "ada_zero",
    "ada_single",
    "ada_continuous",
)
