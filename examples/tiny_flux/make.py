"""Make the quickstart's base model from nothing: `make tiny-flux`.

    python examples/tiny_flux/make.py WORK FOLDER

1. Pictures of shapes are drawn (examples/quickstart/shapes.py).
2. An untrained FLUX.1 pipeline of a small size is written (skeleton.py).
3. Its VAE is trained: `launcher --recipe autoencoder`, which examples/autoencoder_recipe brings.
4. Its decoder is trained further, on pictures only (decoder_only.py).
5. Its transformer is trained: `launcher --recipe flux_controlnet`, with the variant full_finetune.
6. Its transformer is trained further, from half the learning rate.
7. Everything is put together in FOLDER, VAE and transformer in bfloat16 as FLUX.1-dev's are.

What is done stays in WORK: if this is interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import skeleton
from skeleton import shapes, write_json

from launcher.child import foreground
from launcher.training import atomic, digests

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPE = ROOT / "examples" / "autoencoder_recipe"
FULL_FINETUNE = "examples/variants/full_finetune.py"

#: Another than that of the quickstart's own data, of which the base model then has seen nothing.
DATA_SEED = 1000
SAMPLES = 16_384
#: How many pictures the latents are measured on.
MEASURED = 1024


def require_same(work: Path) -> None:
    """That what is in WORK was made by the settings and examples of now: else the provenance would
    be wrong. Which packages each run had, it tells itself."""
    here = Path(__file__).resolve().parent
    sources = [*here.glob("*.yaml"), here / "skeleton.py", here / "decoder_only.py"]
    sources += [*RECIPE.rglob("*.py"), ROOT / FULL_FINETUNE, Path(shapes.__file__).resolve()]
    made_with = {"samples": SAMPLES, "seed": DATA_SEED, "measured": MEASURED}
    made_with |= {
        str(path.relative_to(ROOT)): digests.of_file(path).hex() for path in sorted(sources)
    }
    note = work / "made_with.json"
    if not any(work.iterdir()):
        atomic.write_text(note, json.dumps(made_with, indent=2) + "\n")
    elif not note.exists() or json.loads(note.read_text()) != made_with:
        sys.exit(
            f"{work} holds what was made with other settings than those of {here} now, and cannot "
            "be continued. Give another folder, or remove it."
        )


def require_replaceable(target: Path, work: Path) -> None:
    """That nothing but an earlier pipeline is lost where the new one goes, hours from now."""
    new, made = target.resolve(), work.resolve()
    if new.is_relative_to(made) or made.is_relative_to(new) or ROOT.is_relative_to(new):
        sys.exit(f"{target} cannot be replaced by the pipeline; give a folder beside {work}.")
    is_free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not is_free and not (target / "model_index.json").is_file():
        sys.exit(f"{target} holds something else than a pipeline, and stays. Give a new folder.")


def draw_data(work: Path) -> Path:
    """The pictures, with control images of all kinds, from which the VAE learns these, too."""
    folder = work / "data"
    if not folder.exists():
        with atomic.folder(folder) as new:
            shapes.make_data(new, SAMPLES, seed=DATA_SEED, condition="mixed")
    return folder


def write_skeleton(work: Path) -> Path:
    """The untrained pipeline."""
    folder = work / "skeleton"
    if not folder.exists():
        skeleton.write_skeleton(folder)
    return folder


def install_recipe(work: Path) -> Path:
    """The autoencoder's recipe, beside the environment and not in it; returns what is to be on
    PYTHONPATH."""
    folder = work / "recipes"
    if not folder.exists():
        # From a copy: what is built from leaves files beside it.
        with tempfile.TemporaryDirectory() as copy, atomic.folder(folder) as new:
            shutil.copytree(RECIPE, copy, dirs_exist_ok=True)
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")
            call([*pip, "--no-build-isolation", "--target", str(new), copy])
    return folder


def train(run: Path, *arguments: str, path: Path) -> Path:
    """Train by the launcher, or go on with it, until the run is over; returns its folder."""
    if not (run / "exported.json").exists():
        paths = filter(None, [str(path), os.environ.get("PYTHONPATH")])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "launcher", *arguments, f"output_dir={run}"]
        call([*command, "--resume", "latest"], env=environment, cwd=ROOT)
    return run


def call(command: list[str], **options: Any) -> None:
    """Run a command. If it fails, it has told why: end with its exit code."""
    if status := foreground(command, **options):
        sys.exit(status)


def join_vae(work: Path, source: Path, run: Path, data: Path) -> Path:
    """The skeleton with the trained VAE, whose latents have mean 0 and variance 1 when they are
    normalised with the shift and the scale that its configuration tells."""
    import numpy as np

    from flux_common import loading
    from flux_common.latents import encode_moments
    from launcher.training import device
    from launcher.training.images import load_rgb, to_float

    folder = work / "pipeline"
    if folder.exists():
        return folder
    with atomic.folder(folder) as new:
        shutil.copytree(source, new, dirs_exist_ok=True)
        take_trained(run, "vae", new)
        device.set_up("CPU", 0, "graph")
        vae = loading.load_vae(str(new))
        files = sorted((data / "images").iterdir())[:MEASURED]
        pixels = np.stack([to_float(load_rgb(file)) for file in files])
        means = np.concatenate(
            [encode_moments(vae, batch)[:, :16] for batch in np.split(pixels, MEASURED // 64)]
        )
        config = new / "vae" / "config.json"
        content = json.loads(config.read_text())
        content["shift_factor"] = round(float(means.mean()), 4)
        content["scaling_factor"] = round(1 / float(means.std()), 4)
        write_json(config, content)
    return folder


def join_transformer(work: Path, pipeline: Path, run: Path) -> Path:
    """The pipeline with the transformer that a run has trained."""
    folder = work / "pipeline-base"
    if not folder.exists():
        with atomic.folder(folder) as new:
            shutil.copytree(pipeline, new, dirs_exist_ok=True)
            take_trained(run, "transformer", new)
    return folder


def take_trained(run: Path, part: str, pipeline: Path) -> None:
    """Copy a part of the run's moving average over that of a pipeline."""
    shutil.copytree(run / "ema" / part, pipeline / part, dirs_exist_ok=True)


def assemble(pipeline: Path, runs: dict[str, Path], target: Path) -> None:
    """The finished pipeline with its provenance, in the place of an earlier one."""
    with atomic.folder(target, replace=True) as new:
        shutil.copytree(pipeline, new, dirs_exist_ok=True)
        take_trained(runs["decoder"], "vae", new)
        take_trained(runs["base_further"], "transformer", new)
        (new / "provenance").mkdir()
        for name, run in runs.items():
            config = (run / "config.yaml").read_text(encoding="utf-8")
            # Variants stand there by their absolute paths.
            config = config.replace(f"{ROOT}{os.sep}", "")
            (new / "provenance" / f"{name}.yaml").write_text(config, encoding="utf-8")
        about = {
            "made_by": "make tiny-flux",
            "data": {"samples": SAMPLES, "seed": DATA_SEED, "size": 64},
            "runs": {name: summary(run) for name, run in runs.items()},
        }
        write_json(new / "provenance" / "provenance.json", about)


def summary(run: Path) -> dict[str, Any]:
    """What a run ran with and how it went, without what differs between machines."""
    parts = [json.loads(file.read_text()) for file in sorted(run.glob("provenance*.json"))]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = lines[-len(lines) // 10 :]
    packages = parts[-1]["packages"]
    return {
        "seed": parts[-1]["seed"],
        "device": parts[-1]["device"],
        "steps": lines[-1]["step"],
        "loss_of_last_tenth": round(sum(line["loss"] for line in last) / len(last), 5),
        "minutes_in_steps": round(sum(line["step_seconds"] for line in lines) / 60, 1),
        "interruptions": len(parts) - 1,
        "packages": {name: packages[name] for name in ("mindspore", "mindone", "numpy")},
    }


def main() -> None:
    """Read the command line and do what is still to be done."""
    parser = argparse.ArgumentParser(description="Make the quickstart's base model from nothing.")
    parser.add_argument("work", type=Path, help="folder for what is made on the way")
    parser.add_argument("folder", type=Path, help="where the pipeline goes")
    options = parser.parse_args()
    # As seen from ROOT, so that no path of a machine gets into the configurations.
    work, target = (Path(os.path.relpath(path, ROOT)) for path in (options.work, options.folder))
    if ".." in work.parts:
        parser.error(f"{options.work}: give a folder in {ROOT}; the provenance names it")
    os.chdir(ROOT)
    require_replaceable(target, work)
    work.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    require_same(work)
    data, source = draw_data(work), write_skeleton(work)
    recipes = install_recipe(work)

    def run(name: str, recipe: str, pipeline: Path, *more: str) -> Path:
        return train(
            work / f"run-{name}",
            *("--recipe", recipe, *more, "--config", f"examples/tiny_flux/{name}.yaml"),
            *(f"data.dataset_name={data}", f"model.pretrained_model_name_or_path={pipeline}"),
            path=recipes,
        )

    vae = run("vae", "autoencoder", source)
    pipeline = join_vae(work, source, vae, data)
    as_vae = ("--config", "examples/tiny_flux/vae.yaml", "-p", "examples/tiny_flux/decoder_only.py")
    decoder = run("decoder", "autoencoder", pipeline, *as_vae)
    all_of_it = ("-p", FULL_FINETUNE)
    base = run("base", "flux_controlnet", pipeline, *all_of_it)
    as_base = (*all_of_it, "--config", "examples/tiny_flux/base.yaml")
    joined = join_transformer(work, pipeline, base)
    further = run("base_further", "flux_controlnet", joined, *as_base)
    runs = {"vae": vae, "decoder": decoder, "base": base, "base_further": further}
    assemble(pipeline, runs, target)
    print(f"the pipeline is {options.folder}")


if __name__ == "__main__":
    main()
