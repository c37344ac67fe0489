"""Encoding into the cache, and a plain loop beside it: `python benchmarks/encoding.py`.

The same encoders, cast as the default policy casts them (T5 and CLIP in float32, the VAE in
bf16), the same captions and the same PNG files. Every side encodes all of them from the beginning:

- ours: `flux_common.encode` into an empty `DiskCache`. Keys, decoding of the images, checks,
  checksums, and files that are on the disk (fsync) when it returns.
- plain: what a script would write. Tokenize, encode, keep the arrays in a list; images decoded and
  brought to size by the same function. Batches of the same size.
- plain, saved: the same, cast to half precision, and each caption's and image's arrays to a file
  with `np.save`. Not synced.

The encoders have random values and such sizes (`SIZES`) that a batch takes a few tenths of a second
on a CPU. Compiled before; reading the images' digests and the weights' is part of planning, not of
encoding, and comes before, too. The sides take turns in one process, and what is compared are their
times in the same turn: medians of all turns, without those during which other programs took more
than a twentieth of the machine, which hits threads in lockstep hardest. Beside the throughput
stands the processor time of an input, of all threads: it tells what a side does besides encoding
even where nothing is to be gained by doing it at the same time.

Prints two tables; the last line is the same as JSON. Exits with 1 if ours has less throughput than
the plain loop, captions and images together. About 4 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from blocks import busy_seconds

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

#: What the encoders have other than tests/data/tiny-flux.
SIZES: dict[str, dict[str, Any]] = {
    "text_encoder": dict(
        hidden_size=256, intermediate_size=1024, num_attention_heads=4, num_hidden_layers=2
    ),
    "text_encoder_2": dict(d_model=1024, d_ff=1024, d_kv=64, num_heads=4, num_layers=1),
    "vae": dict(block_out_channels=[4, 8, 8, 8]),
}
TOKENS = 128  # of T5
IMAGE, FILE = 32, 512  # pixels a side, as they are encoded and as they are stored

SIDES = ("ours", "plain", "plain, saved")
KINDS = ("captions", "images")
#: Share of the machine's processor time up to which other programs do not disturb.
QUIET = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--captions", type=int, default=256, help="how many (256)")
    parser.add_argument("--images", type=int, default=128, help="how many (128)")
    parser.add_argument("--runs", type=int, default=5, help="turns (5)")
    parser.add_argument("--folder", help="where the files go for the time being")
    arguments = parser.parse_args()

    from flux_common.encode import BATCH_SIZE

    if arguments.captions % BATCH_SIZE or arguments.images % BATCH_SIZE:
        parser.error(f"give multiples of {BATCH_SIZE}: a plain loop would compile once more")

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        models = build_encoders(folder / "configs")
        read = write_images(folder / "images", arguments.images)
        captions = [
            f"number {n}, a caption such as people write" for n in range(arguments.captions)
        ]
        encodings = plan(models, captions, read, arguments.images)
        sides = dict(
            zip(
                SIDES,
                (
                    partial(ours, models, encodings),
                    partial(plain, models, captions, read, arguments.images, save=False),
                    partial(plain, models, captions, read, arguments.images, save=True),
                ),
            )
        )
        turns = []
        for number in range(arguments.runs + 1):
            order = [SIDES[(number + n) % len(SIDES)] for n in range(len(SIDES))]
            turns.append({side: measure(sides[side], folder / "out") for side in order})
    # The first one compiles.
    report(turns[1:], {"captions": arguments.captions, "images": arguments.images})


def measure(side: Callable[[Path], dict[str, float]], folder: Path) -> dict[str, float]:
    """Seconds by kind, processor seconds, and how busy other programs kept the machine."""
    folder.mkdir()
    own, others = time.process_time(), busy_seconds() - time.process_time()
    start = time.perf_counter()
    result = side(folder)
    elapsed = time.perf_counter() - start
    others = busy_seconds() - time.process_time() - others
    result["both"] = sum(result[kind] for kind in KINDS)
    result["cpu"] = time.process_time() - own
    result["others"] = max(others, 0.0) / (elapsed * (os.cpu_count() or 1))
    shutil.rmtree(folder)
    os.sync()  # what one side leaves to the disk is not to slow the next one down
    return result


def report(turns: list[dict[str, dict[str, float]]], counts: dict[str, int]) -> None:
    """Print the medians, and end the program.

    Args:
        turns: what `measure` returned, by side.
        counts: inputs by kind.
    """
    counts = counts | {"both": sum(counts.values())}
    busy = [max(result["others"] for result in turn.values()) for turn in turns]
    quiet = [turn for turn, share in zip(turns, busy) if share <= QUIET]
    used = quiet if len(quiet) >= 3 else turns

    rates: dict[str, dict[str, float]] = {}
    print(f"{'inputs per second':<20}{'captions':>10}{'images':>10}{'both':>10}{'CPU ms':>10}")
    for side in SIDES:
        seconds = {what: statistics.median(turn[side][what] for turn in used) for what in counts}
        rates[side] = {what: counts[what] / seconds[what] for what in counts}
        cpu = statistics.median(turn[side]["cpu"] for turn in used)
        rates[side]["cpu_ms"] = cpu / counts["both"] * 1e3
        print(f"{side:<20}" + "".join(f"{number:>10.1f}" for number in rates[side].values()))
    ratios: dict[str, dict[str, float]] = {}
    print(f"{'times as fast':<20}{'captions':>10}{'images':>10}{'both':>10}")
    for side in SIDES[1:]:
        ratios[side] = {
            what: statistics.median(turn[side][what] / turn["ours"][what] for turn in used)
            for what in counts
        }
        numbers = "".join(f"{ratio:>10.3f}" for ratio in ratios[side].values())
        print(
            f"{'ours / ' + side:<20}{numbers}{'  (limit for both: 1)' if side == 'plain' else ''}"
        )
    if used is quiet:
        print(f"left out: {len(turns) - len(quiet)} turns during which the machine was busy")
    else:
        print(
            f"THE MACHINE WAS BUSY with other programs, up to {max(busy):.0%} of it: these figures "
            "mean little. Run it again when nothing else runs."
        )
    passed = ratios["plain"]["both"] >= 1
    print(
        json.dumps(
            {
                "counts": counts,
                "rates": rates,
                "ratios": ratios,
                "passed": passed,
                "quiet": used is quiet,
                "turns": turns,
            }
        )
    )
    sys.exit(0 if passed else 1)


def build_encoders(folder: Path) -> dict[str, Any]:
    """Tokenizers, and encoders with random values."""
    from launcher import quiet

    quiet.install(verbose=False)
    from launcher.training import device

    device.set_up("CPU", 0, "graph")
    device.supply_what_lacks()
    import mindspore as ms

    from flux_common import loading
    from launcher.training.freeze import freeze
    from launcher.training.precision import cast_frozen
    from launcher.training.random import generator

    with loading.quiet():
        from mindone.diffusers import AutoencoderKL
        from mindone.transformers import CLIPTextModel, T5EncoderModel
    classes = dict(text_encoder=CLIPTextModel, text_encoder_2=T5EncoderModel, vae=AutoencoderKL)

    tiny = ROOT / "tests" / "data" / "tiny-flux"
    models = dict(zip(("tokenizer", "tokenizer_2"), loading.load_tokenizers(str(tiny))))
    for name, model_class in classes.items():
        config = json.loads((tiny / name / "config.json").read_text(encoding="utf-8"))
        (folder / name).mkdir(parents=True)
        text = json.dumps(config | SIZES[name])
        (folder / name / "config.json").write_text(text, encoding="utf-8")
        model = loading.build(model_class, folder / name)
        model.set_train(False)
        for path, parameter in model.parameters_and_names():
            values = generator(0, path).standard_normal(parameter.shape, dtype=np.float32)
            parameter.set_data(ms.Tensor(values * np.float32(0.02)))
        freeze([model])
        models[name] = cast_frozen(model, ms.bfloat16 if name == "vae" else ms.float32)
    return models


def write_images(folder: Path, count: int) -> Callable[[int], np.ndarray]:
    """Photographs would compress about as well: smooth, with some noise. Returns what reads one."""
    from PIL import Image

    from launcher.training.images import load_rgb, resize_and_crop, to_float
    from launcher.training.random import generator

    folder.mkdir()
    y, x = np.mgrid[:FILE, :FILE]
    for number in range(count):
        draw = generator(0, "image", number)
        waves = [np.sin(x / draw.uniform(5, 50) + y / draw.uniform(5, 50)) for _ in range(3)]
        values = 128 + 100 * np.stack(waves, axis=-1) + draw.normal(0, 3, (FILE, FILE, 3))
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")

    def read(row: int) -> np.ndarray:
        return to_float(resize_and_crop(load_rgb(folder / f"{row}.png"), IMAGE, IMAGE))

    return read


def plan(
    models: dict[str, Any], captions: list[str], read: Callable[[int], np.ndarray], count: int
) -> Any:
    """The encodings of these captions and images, kept in bf16."""
    from flux_common.encodings import FluxEncodings, Images
    from launcher.training.cache.index import as_keys
    from launcher.training.random import generator

    digests = as_keys([generator(0, "digest", row).bytes(32) for row in range(count)])
    images = Images(digests, "brought to size", np.full((count, 2), IMAGE), read)
    return FluxEncodings(
        models,
        lambda: captions,
        {"target": images},
        max_sequence_length=TOKENS,
        network=models["vae"],  # stands for a transformer in bf16: its dtype is all that counts
        memory=None,
    )


def ours(models: dict[str, Any], encodings: Any, folder: Path) -> dict[str, float]:
    from flux_common.encode import encode_captions, encode_images
    from launcher.training.cache import DiskCache

    cache = DiskCache(folder)
    start = time.perf_counter()
    encode_captions(models, encodings, cache)
    middle = time.perf_counter()
    encode_images(models["vae"], encodings, cache)
    end = time.perf_counter()
    if cache.missing(encodings.keys()).any():
        raise RuntimeError("not everything was encoded")
    return {"captions": middle - start, "images": end - middle}


def plain(
    models: dict[str, Any],
    captions: list[str],
    read: Callable[[int], np.ndarray],
    count: int,
    folder: Path,
    *,
    save: bool,
) -> dict[str, float]:
    import ml_dtypes

    from flux_common.encode import BATCH_SIZE
    from flux_common.latents import encode_moments
    from flux_common.prompts import encode_clip, encode_t5, tokenize

    kept: list[tuple[np.ndarray, ...]] = []

    def keep(*arrays: np.ndarray) -> None:
        """Arrays `[B, ...]`."""
        if not save:
            kept.append(arrays)
            return
        for row in zip(*(array.astype(ml_dtypes.bfloat16) for array in arrays)):
            for number, array in enumerate(row):
                np.save(folder / f"{len(kept)}-{number}.npy", array)
            kept.append(())

    start = time.perf_counter()
    clip_length = models["tokenizer"].model_max_length
    for at in range(0, len(captions), BATCH_SIZE):
        batch = captions[at : at + BATCH_SIZE]
        embeds = encode_t5(models["text_encoder_2"], tokenize(models["tokenizer_2"], batch, TOKENS))
        clip_ids = tokenize(models["tokenizer"], batch, clip_length)
        keep(embeds, encode_clip(models["text_encoder"], clip_ids))
    middle = time.perf_counter()
    for at in range(0, count, BATCH_SIZE):
        pixels = np.stack([read(row) for row in range(at, at + BATCH_SIZE)])
        keep(encode_moments(models["vae"], pixels))
    return {"captions": middle - start, "images": time.perf_counter() - middle}


if __name__ == "__main__":
    main()
