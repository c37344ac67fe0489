"""How much memory the precision policies take: `python benchmarks/memory.py`.

A FLUX of middle size with random values (`SIZES`) is built in the launcher's two stages, under
every policy of `launcher/configs/precision`, in bf16 and in fp16, each stage in a process of its
own. Prints two tables; the last line is the same as JSON. Exits with 1 unless policy B takes less
than A in the encode stage, in which alone they differ, and C less than B in the train stage. About
15 minutes; `--computed` prints the second table alone, at once.

The first is measured on this machine's CPU, medians of three processes, in MB (1e6 bytes). `RSS`
is what the process has grown by since everything was imported:

- at rest: the parts are cast and the optimizer is made, its state written over once (zeros take no
  memory until then). Garbage is collected and glibc's malloc gives back what is free
  (`malloc_trim`). This is what is compared, here and in bytes: it is the same on any device.
- after two steps, and at most: for information. What a step takes on a CPU says little about an
  NPU. The compiler's own memory is in it, bf16 is emulated in float32, and MindSpore's CPU kernels
  of Add, Sub, Mul and Div keep 16 bytes for each element of their result unless they add, subtract
  or multiply float32 tensors of equal shape, or one with a number. Policy C's optimizer is made of
  such kernels, that of A and B is one fused kernel a parameter: on a CPU, a step of C takes more.

Beside it stand the bytes of parameters, of the optimizer's state (scalars aside) and of gradients
in the dtype of what is trained. The second table has the same for FLUX.1-dev and a ControlNet of 4
double and 0 single layers, computed, in GB (1e9 bytes). Neither counts activations, nor what a step
takes beside them: the gradients once more in float32, scaled and clipped, under every policy.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

STEPS = 2
IMAGE, TEXT = (4, 4), 16  # packed latents and T5 tokens: few, so that activations are small
CONTROLNET = (2, 0)  # double and single layers

#: What the parts have other than tests/data/tiny-flux.
SIZES: dict[str, dict[str, Any]] = {
    "text_encoder": dict(
        hidden_size=512, intermediate_size=2048, num_attention_heads=8, num_hidden_layers=4,
        vocab_size=8192,
    ),
    "text_encoder_2": dict(
        d_model=768, d_ff=2048, d_kv=64, num_heads=12, num_layers=12, vocab_size=32128,
    ),
    "vae": dict(block_out_channels=[64, 128, 256, 256], norm_num_groups=32),
    "transformer": dict(
        attention_head_dim=64, num_attention_heads=10, axes_dims_rope=[8, 28, 28], num_layers=3,
        num_single_layers=3, joint_attention_dim=768, pooled_projection_dim=512,
    ),
}  # fmt: skip

#: Numbers of parameters, of MindONE's classes built from FLUX.1-dev's configs.
FLUX_DEV = {
    "text_encoder": 123_060_480,
    "text_encoder_2": 4_762_310_656,
    "vae": 83_819_683,
    "transformer": 11_901_408_320,
    "controlnet": 1_442_333_696,  # 4 double and 0 single layers
}

#: Stage, policies that are the same in it, the file of the first, its optimizer in place of the
#: file's. In each stage the second has to take less than the first; the last is for information.
CASES = {
    ("encode", "A"): ("policy_a", None),
    ("encode", "B, C"): ("policy_b", None),
    ("train", "A, B"): ("policy_a", None),
    ("train", "C"): ("policy_c", None),
    ("train", "C, adamw_bf16"): ("policy_c", "adamw_bf16"),
}
LESS = [
    (("encode", "B, C"), ("encode", "A")),
    (("train", "C"), ("train", "A, B")),
]

#: Bytes of the optimizer's state for each trained parameter: two float32 moments; `adamw_bf16` has
#: a float32 copy besides.
STATE = {"adamw": 8, "adamw_upcast": 8, "adamw_bf16": 12}
BYTES = {"fp32": 4, "half": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="processes per case (3)")
    parser.add_argument("--computed", action="store_true", help="the second table alone")
    arguments = parser.parse_args()

    passed, measured = True, []
    if not arguments.computed:
        print(f"{'measured, MB':<33}{'RSS':^27}  {'bytes':^50}")
        print(
            f"{'stage':<8}{'policy':<15}{'precision':<10}"
            f"{'at rest':>9}{'stepped':>9}{'peak':>9}  "
            f"{'at rest':>9}{'parameters':>12}{'state':>9}{'gradients':>11}{'total':>9}"
        )
        for precision in ("bf16", "fp16"):
            rows = {case: row(case, precision, arguments.runs) for case in CASES}
            passed = passed and all(
                rows[less][figure] < rows[more][figure]
                for less, more in LESS
                for figure in ("rss_at_rest", "at_rest", "total")
            )
            measured += rows.values()
        print()

    computed = {case: compute(case) for case in CASES}
    print("computed for FLUX.1-dev with a ControlNet of 4 + 0 layers, half precision, GB")
    print(f"{'stage':<8}{'policy':<15}{'parameters':>12}{'state':>9}{'gradients':>11}{'total':>9}")
    for (stage, policy), sizes in computed.items():
        print(
            f"{stage:<8}{policy:<15}{sizes['parameters'] / 1e9:>12.2f}{sizes['state'] / 1e9:>9.2f}"
            f"{sizes['gradients'] / 1e9:>11.2f}{sizes['total'] / 1e9:>9.2f}"
        )
    passed = passed and all(
        computed[less]["total"] < computed[more]["total"] for less, more in LESS
    )
    flux_dev = [dict(stage=s, policy=p, **sizes) for (s, p), sizes in computed.items()]
    print(json.dumps({"measured": measured, "flux_dev": flux_dev}))
    sys.exit(0 if passed else 1)


def row(case: tuple[str, str], precision: str, runs: int) -> dict[str, Any]:
    """Measure a case, and print and return the medians."""
    found = []
    for _ in range(runs):
        # `spawn`: a process that begins with nothing.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(measure, case, precision).result())
    sizes: dict[str, Any] = dict(stage=case[0], policy=case[1], precision=precision)
    sizes |= {name: int(statistics.median(run[name] for run in found)) for name in found[0]}
    sizes["rss_at_rest_runs"] = [run["rss_at_rest"] for run in found]
    mb = {name: f"{size / 1e6:.0f}" for name, size in sizes.items() if isinstance(size, int)}
    print(
        f"{case[0]:<8}{case[1]:<15}{precision:<10}"
        f"{mb['rss_at_rest']:>9}{mb.get('rss_stepped', '-'):>9}{mb['rss_peak']:>9}  "
        f"{mb['at_rest']:>9}{mb['parameters']:>12}{mb['state']:>9}{mb['gradients']:>11}"
        f"{mb['total']:>9}",
        flush=True,
    )
    return sizes


def measure(case: tuple[str, str], precision: str) -> dict[str, int]:
    """In a process of its own: build a stage, and train two steps if that is what it does.

    Returns:
        Bytes by name; `rss_stepped` only where steps are done.
    """
    from launcher import quiet

    quiet.install(verbose=False)
    from launcher.training import device

    device.set_up("CPU", 0, "graph")
    device.supply_what_lacks()
    from flux_controlnet_plugin import recipe
    from launcher import defaults
    from launcher.training.freeze import freeze

    config = configuration(case, precision)
    model_classes()  # imports them
    before, _ = resident()
    models = build(case[0])
    if case[0] == "encode":
        freeze(models.values())
    else:
        models = recipe.configure_trainable(models)
    models = recipe.apply_precision(config, models)
    trained, state, optimizer = models.trainable_parameters(), [], None
    if trained:
        optimizer = defaults.build_optimizer(config, trained)
        own = {id(parameter) for parameter in trained}
        state = [p for p in optimizer.get_parameters() if id(p) not in own and p.size > 1]
        write_over(state)
    at_rest, _ = resident()
    sizes = total(
        parameters=sum(p.nbytes for cell in models.values() for p in cell.get_parameters()),
        state=sum(p.nbytes for p in state),
        gradients=sum(p.nbytes for p in trained),
    )
    sizes["rss_at_rest"] = at_rest - before
    if optimizer is not None:
        train(models, optimizer, loss_scaling=config.precision.loss_scaling)
        sizes["rss_stepped"] = resident()[0] - before
    sizes["rss_peak"] = resident()[1] - before
    return sizes


def configuration(case: tuple[str, str], precision: str) -> Any:
    """What a run with the policy's file has, as far as it is needed here."""
    import yaml

    from hooks.types import Config
    from launcher import sections

    name, optimizer = CASES[case]
    file = ROOT / "launcher" / "configs" / "precision" / f"{name}.yaml"
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    given["precision"]["mixed_precision"] = precision
    if optimizer is not None:
        given["optimizer"] = {"name": optimizer}
    return Config(
        dict(
            precision=sections.PrecisionSection(**given["precision"]),
            optimizer=sections.OptimizerSection(**given.get("optimizer", {})),
            train=sections.TrainSection(output_dir="none"),
        )
    )


def model_classes() -> dict[str, Any]:
    """MindONE's class of every part."""
    from flux_common import loading

    with loading.quiet():
        from mindone.diffusers import AutoencoderKL, FluxControlNetModel, FluxTransformer2DModel
        from mindone.transformers import CLIPTextModel, T5EncoderModel
    return dict(
        text_encoder=CLIPTextModel, text_encoder_2=T5EncoderModel, vae=AutoencoderKL,
        transformer=FluxTransformer2DModel, controlnet=FluxControlNetModel,
    )  # fmt: skip


def build(stage: str) -> Any:
    """The parts of a stage, float32."""
    from flux_controlnet_plugin.controlnet import controlnet_from_transformer
    from hooks.types import Models

    if stage == "encode":
        parts = ("text_encoder", "text_encoder_2", "vae")
        return Models({name: build_part(name) for name in parts})
    transformer = build_part("transformer")
    controlnet = controlnet_from_transformer(transformer, *CONTROLNET)
    return Models(transformer=transformer, controlnet=controlnet)


def build_part(name: str) -> Any:
    """A part of the size in `SIZES`, float32, every parameter written to."""
    import mindspore as ms
    import numpy as np

    from flux_common import loading
    from launcher.training.random import generator

    tiny = ROOT / "tests" / "data" / "tiny-flux" / name / "config.json"
    config = json.loads(tiny.read_text(encoding="utf-8")) | SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        model = loading.build(model_classes()[name], Path(folder))
    model.set_train(False)
    for path, parameter in model.parameters_and_names():
        values = generator(0, path).standard_normal(parameter.shape, dtype=np.float32)
        parameter.set_data(ms.Tensor(values * np.float32(0.02)))
    return model


def write_over(parameters: list[Any]) -> None:
    """Write their own values to parameters, so that the system gives them memory."""
    import mindspore as ms

    for parameter in parameters:
        parameter.set_data(ms.Tensor(parameter.asnumpy().copy()))


def train(models: Any, optimizer: Any, *, loss_scaling: bool) -> None:
    """Two steps on one sample of random numbers."""
    import numpy as np

    from flux_common.latents import image_ids
    from flux_controlnet_plugin.loss import FluxControlNetLoss
    from launcher.training.random import generator
    from launcher.training.step import TrainStep, dynamic_loss_scaler

    inputs = dict(text_length=TEXT, guidance_scale=3.5)
    step = TrainStep(
        FluxControlNetLoss(models["controlnet"], models["transformer"], **inputs),
        optimizer,
        max_grad_norm=1.0,
        loss_scaler=dynamic_loss_scaler() if loss_scaling else None,
    )
    draw = generator(0, "batch")

    def normal(*shape: int) -> Any:
        return draw.standard_normal((1, *shape), dtype=np.float32)

    config = models["transformer"].config
    tokens = IMAGE[0] * IMAGE[1]
    latents, control_latents, noise = (normal(tokens, config.in_channels) for _ in range(3))
    sigmas, timesteps, weights = np.array([[0.5], [500], [1]], np.float32)
    prompt_embeds = normal(TEXT, config.joint_attention_dim)
    pooled_prompt_embeds = normal(config.pooled_projection_dim)
    micro_batch = (
        latents, control_latents, noise, sigmas, timesteps, weights, prompt_embeds,
        pooled_prompt_embeds, image_ids(*IMAGE),
    )  # fmt: skip
    for _ in range(STEPS):
        loss, _, applied = step([micro_batch], 1e-5)
        if not (applied and np.isfinite(loss)):
            raise RuntimeError(f"the step was not done: loss {loss}, update applied: {applied}")


def resident() -> tuple[int, int]:
    """Resident bytes of this process, now and at most, after what is free was given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    now, most = (int(values[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def compute(case: tuple[str, str]) -> dict[str, int]:
    """Bytes for FLUX.1-dev in half precision; nothing is allocated."""
    config = configuration(case, "bf16")
    half, text = BYTES["half"], BYTES[config.precision.text_encoders]
    count = FLUX_DEV
    if case[0] == "encode":
        encoders = (count["text_encoder"] + count["text_encoder_2"]) * text
        return total(parameters=encoders + count["vae"] * half, state=0, gradients=0)
    trained = count["controlnet"] * BYTES[config.precision.trainable_params]
    return total(
        parameters=count["transformer"] * half + trained,
        state=count["controlnet"] * STATE[config.optimizer.name],
        gradients=trained,
    )


def total(*, parameters: int, state: int, gradients: int) -> dict[str, int]:
    """The same with two sums: of what is there between steps, and of all."""
    at_rest = parameters + state
    return dict(
        parameters=parameters, state=state, gradients=gradients, at_rest=at_rest,
        total=at_rest + gradients,
    )  # fmt: skip


if __name__ == "__main__":
    main()
