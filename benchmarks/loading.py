"""Loading a part in half precision, and mindone's way beside it: `python benchmarks/loading.py`.

A FLUX transformer of about 1 GB in bf16 (`SIZES`, random bits) is written once in one file and once
in shards, and loaded to be kept in bf16:

- ours: as the launcher does it. Built without values, frozen, cast, and then read from the files.
- mindone: `FluxTransformer2DModel.from_pretrained(folder, mindspore_dtype=ms.bfloat16)`.

Every load runs in a process of its own, sides in turn, and the medians are printed. Time is that of
the loading alone: imports and MindSpore's first operations come before. The files are in the
system's page cache. Memory is resident memory as it grows from there, `peak` by the kernel's own
high-water mark, which is reset before, and `at rest` after garbage was collected and free memory
given back. Both are shown as multiples of the files' size. Afterwards each parameter is compared
with the files, bit for bit.

Below, a ControlNet of 4 double and 0 single layers is made from the transformer that was loaded,
in float32, as the default policy trains it. What is counted begins before the transformer is
loaded, and is shown as a multiple of the bytes of both models' parameters; the time is that of the
ControlNet alone. mindone's side is `FluxControlNetModel.from_transformer`.

Prints each figure with its limit; the last line is the same as JSON. Exits with 1 if a limit is
missed or a bit differs. About 5 minutes; 3 GB on the disk and 6 GB of memory.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from blocks import busy_seconds

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

#: Width, blocks and text width of the transformer, other than tests/data/tiny-flux: 0.5 billion
#: parameters.
SIZES: dict[str, Any] = dict(
    attention_head_dim=128, num_attention_heads=12, axes_dims_rope=[16, 56, 56], num_layers=4,
    num_single_layers=4, joint_attention_dim=4096, pooled_projection_dim=768,
)  # fmt: skip
CONTROLNET = (4, 0)  # double and single layers
SHARDS = 4

SIDES = ("ours", "mindone")
FORMS = ("one file", f"{SHARDS} shards")
PEAK_LIMIT, TIME_LIMIT = 1.6, 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="processes per figure (3)")
    parser.add_argument("--layers", type=int, default=4, help="double and single layers each (4)")
    parser.add_argument("--folder", help="where the files go for the time being")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        places = {form: Path(folder, form.replace(" ", "-")) for form in FORMS}
        size = in_a_process(make_folders, places, arguments.layers)
        print(f"a transformer of {size / 1e9:.3f} GB in bf16, median of {arguments.runs} processes")
        print(
            f"{'':<22}{'side':<9}{'s':>7}{'peak / file':>13}{'at rest / file':>16}{'bits':>9}"
            f"{'others busy':>13}"
        )
        loads: dict[tuple[str, str], dict[str, Any]] = {}
        for form, place in places.items():
            loads |= compare(f"load, {form}", load, place, arguments.runs)
        made = compare("make a ControlNet", make_controlnet, places[FORMS[0]], arguments.runs)

    passed = True
    for form in FORMS:
        ours, theirs = (loads[f"load, {form}", side] for side in SIDES)
        ratio = ours["seconds"] / theirs["seconds"]
        print(f"{form}: time, ours / mindone: {ratio:.2f} (limit {TIME_LIMIT})")
        print(f"{form}: peak, ours / file: {ours['peak']:.2f} (limit {PEAK_LIMIT})")
        passed = passed and ratio <= TIME_LIMIT and ours["peak"] <= PEAK_LIMIT
    passed = passed and all(row["equal"] for row in loads.values())
    rows = [dict(what=what, side=side, **row) for (what, side), row in (loads | made).items()]
    print(json.dumps({"file_bytes": size, "passed": passed, "rows": rows}))
    sys.exit(0 if passed else 1)


def compare(
    what: str, measure: Callable[[str, Path], dict[str, Any]], place: Path, runs: int
) -> dict[tuple[str, str], dict[str, Any]]:
    """Let the sides take turns. Prints and returns the medians."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for turn in range(runs):
        for side in SIDES[:: 1 if turn % 2 == 0 else -1]:
            found[side].append(in_a_process(measure, side, place))
    rows = {}
    for side, results in found.items():
        row = {n: statistics.median(r[n] for r in results) for n in ("peak", "rest", "seconds")}
        row["equal"] = all(r["equal"] for r in results)
        row["others"] = max(r["others"] for r in results)
        row["seconds_runs"] = [round(r["seconds"], 2) for r in results]
        row["peak_runs"] = [round(r["peak"], 3) for r in results]
        rows[what, side] = row
        print(
            f"{what:<22}{side:<9}{row['seconds']:>7.2f}{row['peak']:>13.2f}{row['rest']:>16.2f}"
            f"{'equal' if row['equal'] else 'DIFFER':>9}{row['others']:>12.0%}",
            flush=True,
        )
    return rows


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process that begins with nothing."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def make_folders(places: dict[str, Path], layers: int) -> int:
    """Write the same transformer in one file and in shards. Returns bytes of weights."""
    set_up()
    from mindone.diffusers import FluxTransformer2DModel

    from flux_common import loading
    from launcher.training import safetensors_files

    tiny = ROOT / "tests" / "data" / "tiny-flux" / "transformer" / "config.json"
    config = json.loads(tiny.read_text(encoding="utf-8")) | SIZES
    config |= {"num_layers": layers, "num_single_layers": layers}
    for place in places.values():
        (place / "transformer").mkdir(parents=True)
        text = json.dumps(config)
        (place / "transformer" / "config.json").write_text(text, encoding="utf-8")
    single, sharded = (place / "transformer" for place in places.values())

    shapes = {
        name: tuple(parameter.shape)
        for name, parameter in loading.file_names(
            loading.build(FluxTransformer2DModel, single)
        ).items()
    }
    tensors = {n: safetensors_files.TensorInfo("BF16", shape) for n, shape in shapes.items()}

    def write(path: Path, names: list[str]) -> None:
        chosen = {name: tensors[name] for name in names}
        metadata = {"format": "pt"}
        safetensors_files.write(path, chosen, lambda n: random_bf16(n, shapes[n]), metadata)

    names = list(tensors)
    write(single / "diffusion_pytorch_model.safetensors", names)
    files, weight_map = [], {}
    each = -(-len(names) // SHARDS)
    for number in range(SHARDS):
        files.append(f"diffusion_pytorch_model-{number + 1:05}-of-{SHARDS:05}.safetensors")
        held = names[number * each : (number + 1) * each]
        write(sharded / files[-1], held)
        weight_map |= dict.fromkeys(held, files[-1])
    size = (single / "diffusion_pytorch_model.safetensors").stat().st_size
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (sharded / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return size


def random_bf16(name: str, shape: tuple[int, ...]) -> Any:
    """Every sign and mantissa, magnitudes from 2^-7 to 2; the same for the same name."""
    import ml_dtypes
    import numpy as np

    from launcher.training.random import generator

    bits = np.frombuffer(generator(0, name).bytes(2 * int(np.prod(shape))), np.uint16)
    return ((bits & 0x83FF) | 0x3C00).astype(np.uint16).view(ml_dtypes.bfloat16).reshape(shape)


def load(side: str, place: Path) -> dict[str, Any]:
    """In a process of its own: load the transformer. Sizes are multiples of its files'."""
    set_up()
    meter = Meter()
    transformer = load_transformer(side, place)
    result = meter.read(sum(file.stat().st_size for file in weight_files(place)))
    result["equal"] = equals_files(transformer, weight_files(place))
    return result


def make_controlnet(side: str, place: Path) -> dict[str, Any]:
    """In a process of its own: load the transformer and make a ControlNet beside it. Sizes are
    multiples of both models' parameters; the time is that of the ControlNet alone."""
    set_up()
    import mindspore as ms
    from mindone.diffusers import FluxControlNetModel

    from flux_common import loading
    from flux_controlnet_plugin.controlnet import controlnet_from_transformer
    from launcher.training import weights
    from launcher.training.precision import cast_trained

    meter = Meter()
    transformer = load_transformer(side, place)
    meter.restart_clock()
    if side == "ours":
        with loading.deferred():
            controlnet = controlnet_from_transformer(transformer, *CONTROLNET)
        cast_trained(controlnet, ms.float32, ms.bfloat16)
        weights.load([controlnet])
    else:
        with loading.quiet():
            controlnet = FluxControlNetModel.from_transformer(
                transformer,
                num_layers=CONTROLNET[0],
                num_single_layers=CONTROLNET[1],
                attention_head_dim=SIZES["attention_head_dim"],
                num_attention_heads=SIZES["num_attention_heads"],
            )
    parts = (transformer, controlnet)
    result = meter.read(sum(p.nbytes for part in parts for p in part.get_parameters()))
    if {str(p.dtype) for p in controlnet.get_parameters()} != {"Float32"}:
        raise RuntimeError("the ControlNet is not in float32")
    result["equal"] = equals_files(controlnet, weight_files(place))
    return result


def set_up() -> None:
    """Everything that is imported or done once, whatever is loaded."""
    from launcher import quiet

    quiet.install(verbose=False)
    from launcher.training import device

    device.set_up("CPU", 0, "graph")
    device.supply_what_lacks()
    import mindspore as ms

    from flux_common import loading
    from flux_controlnet_plugin import controlnet  # noqa: F401
    from launcher.training import precision, weights  # noqa: F401

    with loading.quiet():
        from mindone.diffusers import FluxControlNetModel, FluxTransformer2DModel  # noqa: F401
        from mindone.diffusers.utils import logging
    logging.disable_progress_bar()
    ms.Parameter(ms.Tensor([1.0])).set_dtype(ms.bfloat16)


def load_transformer(side: str, place: Path) -> Any:
    """Ready to be used in bf16."""
    import mindspore as ms

    from flux_common import loading
    from launcher.training import weights
    from launcher.training.freeze import freeze
    from launcher.training.precision import cast_frozen

    if side == "mindone":
        from mindone.diffusers import FluxTransformer2DModel

        with loading.quiet():
            return FluxTransformer2DModel.from_pretrained(
                str(place / "transformer"), mindspore_dtype=ms.bfloat16
            )
    with loading.deferred():
        transformer = loading.load_transformer(str(place))
    freeze([transformer])
    cast_frozen(transformer, ms.bfloat16)
    weights.load([transformer])
    return transformer


def weight_files(place: Path) -> list[Path]:
    return sorted((place / "transformer").glob("*.safetensors"))


def equals_files(model: Any, files: list[Path]) -> bool:
    """Whether the parameters that the files hold have those values, and are bf16 or wider. Both are
    compared as float32, in which every bf16 number is itself."""
    import numpy as np

    from flux_common import loading
    from launcher.training import safetensors_files, weights

    parameters = loading.file_names(model)
    for file in files:
        for name, value in safetensors_files.read_tensors(file, parameters.keys()):
            held = weights.as_float32(parameters[name])
            if not np.array_equal(held.view(np.uint32), value.astype(np.float32).view(np.uint32)):
                return False
    return True


class Meter:
    """What is done from now on: seconds, resident memory, and how busy the machine is besides."""

    def __init__(self) -> None:
        give_back()
        # Sets the high-water mark to what is resident now (proc(5)).
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        self._before = status("VmRSS")
        self.restart_clock()

    def restart_clock(self) -> None:
        self._others = busy_seconds() - time.process_time()
        self._start = time.perf_counter()

    def read(self, unit: int) -> dict[str, Any]:
        """Memory in multiples of `unit` bytes."""
        seconds = time.perf_counter() - self._start
        others = busy_seconds() - time.process_time() - self._others
        peak = status("VmHWM")
        give_back()
        return dict(
            seconds=seconds,
            peak=(peak - self._before) / unit,
            rest=(status("VmRSS") - self._before) / unit,
            others=max(others, 0.0) / (seconds * (os.cpu_count() or 1)),
        )


def give_back() -> None:
    """Let the system have what is free."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def status(name: str) -> int:
    """Bytes, from the kernel's account of this process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


if __name__ == "__main__":
    main()
