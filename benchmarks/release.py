"""What the training process holds once the encoders did their work: `python benchmarks/release.py`.

Runs the launcher on a pipeline whose encoders (CLIP, T5, VAE) are 60 % of all weights (`SIZES`,
random values) in float32, with every way of `precision.release_text_encoders`, each time with an
empty cache. Memory is what the kernel counts as resident; nothing is subtracted, and nothing is
collected or given back to please the measurement. `release_plugin.py` reads it in the processes of
the run, in MB (1e6 bytes):

- imported: everything is imported and every part built, without values.
- encoding: at most, until the data set is encoded. With `process`, in the process that does it,
  beside which the one that trains waits, with what is `imported`.
- released: the encoders went where `release_text_encoders` sends them, and the networks are loaded.
- compiled, stepped: the training step is compiled; the last step is done.
- peak: at most in the whole run, in the process that trains. This is what is compared.

What the encoders leave behind is what `released` has more than with `process`. On this CPU backend,
`delete` gives next to nothing back. `cast` takes more than `keep`, by about half of the encoders'
weights: the half-precision copies come on top, and the float32 values they replace stay.

Beside weights there are the frameworks (`imported`), what they need to compile and to run, and
gradients and optimizer state of the ControlNet. The larger the model, the less these count: with
encoders of 60 %, the ratio of `process` to `keep` comes down towards 0.4. A model three quarters as
large as this one gave 0.500.

Prints a table; the last line is the same as JSON. Exits with 1 unless the peak with `process` is at
most half of that with `keep`. About ten minutes; 8 GB on the disk and 14 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from release_plugin import FILE

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATA = ROOT / "tests" / "data"
sys.path[:0] = [str(ROOT), str(DATA)]

WAYS = ("process", "keep", "delete", "cast")
LIMIT = 0.5
SAMPLES, SIDE, TOKENS = 4, 64, 16  # few and small, so that weights are what memory is needed for
ENCODERS = ("text_encoder", "text_encoder_2", "vae")

#: What the parts have other than tests/data/tiny-flux. CLIP is FLUX.1's; the others are narrower.
SIZES: dict[str, dict[str, Any]] = {
    "text_encoder": dict(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12,
        vocab_size=49408,
    ),
    "text_encoder_2": dict(
        d_model=2048, d_ff=5120, d_kv=64, num_heads=32, num_layers=20, vocab_size=32128,
    ),
    "vae": dict(block_out_channels=[64, 128, 256, 256], norm_num_groups=32),
    "transformer": dict(
        attention_head_dim=64, num_attention_heads=16, axes_dims_rope=[8, 28, 28], num_layers=4,
        num_single_layers=37, joint_attention_dim=2048, pooled_projection_dim=768,
    ),
}  # fmt: skip
CONTROLNET = (1, 0)  # double and single layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1, help="runs for each way (1)")
    parser.add_argument("--steps", type=int, default=3, help="steps of a run (3)")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = write_inputs(folder)
        share = sum(weights[part] for part in ENCODERS) / sum(weights.values())
        sizes = ", ".join(f"{part} {size / 1e6:.0f}" for part, size in weights.items())
        print(f"weights, MB: {sizes}; encoders: {share:.1%}")
        columns = ("imported", "encoding", "released", "compiled", "stepped", "peak")
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for number in range(arguments.runs):
            for way in WAYS:
                found[way].append(run(folder, way, arguments.steps))
                print(f"run {number + 1} of {arguments.runs} with {way} done", flush=True)

    print(f"{'MB':<10}" + "".join(f"{c:>10}" for c in columns) + f"{'time, s':>10}")
    rows = {}
    for way, runs in found.items():
        row = {name: statistics.median(r[name] for r in runs) for name in runs[0]}
        rows[way] = row
        cells = "".join(f"{row[column] / 1e6:>10.0f}" for column in columns)
        print(f"{way:<10}{cells}{row['seconds']:>10.0f}")
    ratio = rows["process"]["peak"] / rows["keep"]["peak"]
    print(f"peak with process / with keep: {ratio:.3f} (limit {LIMIT})")
    print(json.dumps(dict(weights=weights, runs=found, ratio=ratio, load=os.getloadavg())))
    sys.exit(0 if ratio <= LIMIT else 1)


def write_inputs(folder: Path) -> dict[str, int]:
    """Write pipeline and data set. Returns the bytes of every part, the ControlNet included."""
    from make_circles import make_data

    make_data(folder / "data", SAMPLES, SIDE)
    for name in ("model_index.json", "scheduler", "tokenizer", "tokenizer_2"):
        source, copy = DATA / "tiny-flux" / name, folder / "pipeline" / name
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(source, copy)
    # In a process of its own, so that this one stays small.
    command = [sys.executable, "-c", "import release; release.write_weights()", str(folder)]
    output = subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def write_weights() -> None:
    """In a process of its own: write the parts' weights, and print how large they are."""
    from memory import model_classes

    from flux_common import loading
    from flux_controlnet_plugin.controlnet import controlnet_from_transformer
    from launcher import quiet
    from launcher.training import device, safetensors_files
    from launcher.training.safetensors_files import TensorInfo

    quiet.install(verbose=False)
    device.set_up("CPU", 0, "graph")
    pipeline, classes, sizes = Path(sys.argv[1], "pipeline"), model_classes(), {}
    for part, changes in SIZES.items():
        source, target = DATA / "tiny-flux" / part, pipeline / part
        target.mkdir()
        config = json.loads((source / "config.json").read_text(encoding="utf-8")) | changes
        (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (file,) = source.glob("*.safetensors")
        with loading.deferred():
            model = loading.build(classes[part], target)
        tensors = {
            name: TensorInfo("F32", tuple(parameter.shape))
            for name, parameter in loading.file_names(model).items()
        }
        safetensors_files.write(target / file.name, tensors, lambda n, t=tensors: values(n, t[n]))
        sizes[part] = sum(parameter.nbytes for parameter in model.get_parameters())
    with loading.deferred():
        transformer = loading.load_transformer(str(pipeline))
        controlnet = controlnet_from_transformer(transformer, *CONTROLNET)
    sizes["controlnet"] = sum(parameter.nbytes for parameter in controlnet.get_parameters())
    print(json.dumps(sizes))


def values(name: str, tensor: Any) -> Any:
    import numpy as np

    from launcher.training.random import generator

    numbers = generator(0, name).standard_normal(tensor.shape, dtype=np.float32)
    return numbers * np.float32(0.02)


def run(folder: Path, way: str, steps: int) -> dict[str, float]:
    """One run of the launcher. Returns bytes by moment, see the top, and `seconds`."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        notes, output = Path(name, "notes"), Path(name, "output")
        command = [
            sys.executable, "-m", "launcher", "--recipe", "flux_controlnet",
            "-p", str(HERE / "release_plugin.py"),
            f"model.pretrained_model_name_or_path={folder / 'pipeline'}",
            f"model.num_double_layers={CONTROLNET[0]}", f"model.num_single_layers={CONTROLNET[1]}",
            f"data.dataset_name={folder / 'data'}",
            "data.conditioning_image_column=conditioning_image", f"data.resolution={SIDE}",
            f"data.max_sequence_length={TOKENS}", f"data.cache_dir={name}/cache",
            "train.train_batch_size=1", f"train.max_train_steps={steps}",
            f"train.output_dir={name}/run", "precision.mixed_precision=no",
            f"precision.release_text_encoders={way}",
        ]  # fmt: skip
        start = time.monotonic()
        with open(output, "w", encoding="utf-8") as file:
            code = subprocess.run(
                command, cwd=ROOT, env={**os.environ, FILE: str(notes)}, stdout=file, stderr=file
            ).returncode
        seconds = time.monotonic() - start
        if code:
            sys.exit(f"the run with {way} failed:\n{output.read_text(encoding='utf-8')}")
        lines = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    (trainer,) = {line["process"] for line in lines if line["moment"] == "released"}
    here = {line["moment"]: line for line in lines if line["process"] == trainer}
    (encoded,) = (line for line in lines if line["moment"] == "encoded")
    return dict(
        imported=here["imported"]["now"],
        encoding=encoded["most"],
        released=here["released"]["now"],
        compiled=here["compiled"]["now"],
        stepped=here[f"step {steps}"]["now"],
        peak=here["end"]["most"],
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
