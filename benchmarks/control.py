"""Whether a ControlNet controls: `python benchmarks/control.py --base PIPELINE [RUN]`.

For pictures of shapes (examples/quickstart/shapes.py). Scenes that were in no training data are
sampled with the run's ControlNet, each from its caption and its control image, at several
conditioning scales; once more with the control image of another scene; and by the base model alone.
Every picture is scored (shape_scores.py):

- *IoU*: how well the shape that was drawn covers the one in the control image. For another scene's
  control image, that one's.
- *colours*: the share of pictures whose shape and background have the colours of the caption.
- *shape*: the share of pictures with the caption's shape. With another scene's control image,
  caption and control may disagree, and it is left out.

Without RUN, only the base model is scored; `--lora RUN` scores it once more with adapters, and
`--shapes cross` asks for shapes that it may not know. Prints a table; `--grid FILE` writes some of
the pictures beside each other, `--json FILE` the scores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import shape_scores
from benchmarks.shape_scores import shapes

#: Of the scenes; the data of the quickstart and of its base model have others.
SEED = 2000
TOKENS = 8  # a caption has no more, and the base model has seen no more
BATCH = 25
GRID = 8  # scenes in the picture


@dataclass(frozen=True)
class Scores:
    """Means over pictures; see the head of this file."""

    iou: float
    colours: float
    shape: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", type=Path, help="a run, a checkpoint, or a ControlNet")
    parser.add_argument("--base", type=Path, required=True, help="the pipeline's folder")
    parser.add_argument("--lora", type=Path, help="adapters: a file, or a run")
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=shapes.SHAPES,
        default=shapes.KNOWN_SHAPES,
        help="what to ask for (what the base model of the quickstart knows)",
    )
    parser.add_argument("--samples", type=int, default=100, help="scenes (100)")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures (64)")
    parser.add_argument("--steps", type=int, default=28, help="of the sampler (28)")
    parser.add_argument("--condition", choices=shapes.CONDITIONS, default="outline")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 0.7, 1.0])
    parser.add_argument("--grid", type=Path, help="write this picture")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    options = parser.parse_args()

    scenes, controls = held_out(options.samples, options.size, options.condition, options.shapes)
    sampler = Sampler(options.base, options.run, options.steps)
    embeddings = sampler.encode([scene.caption for scene in scenes])

    results: dict[str, Scores] = {}
    pictures: dict[str, np.ndarray] = {}

    def measure(
        name: str, used: Sequence[Any], of: Sequence[Any], scale: float, by: Sampler = sampler
    ) -> None:
        pictures[name] = by.sample(embeddings, used, scale)
        results[name] = score(pictures[name], scenes, of)
        print(f"{name:<28}{row(results[name])}", flush=True)

    print(f"{'':<28}{'IoU':>8}{'colours':>10}{'shape':>8}")
    measure("no control", controls, scenes, 0.0)
    if options.run is not None:
        for scale in options.scales:
            measure(f"scale {scale:g}", controls, scenes, scale)
        other = [*range(1, len(scenes)), 0]
        moved = [scenes[i] for i in other]
        measure("another's control, scale 1", [controls[i] for i in other], moved, 1.0)
    if options.lora is not None:
        adapted = Sampler(options.base, None, options.steps, options.lora)
        measure("with the adapters", controls, scenes, 0.0, adapted)
    if options.grid is not None:
        write_grid(options.grid, scenes, controls, pictures)
    if options.json is not None:
        content = {name: vars(scores) for name, scores in results.items()}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def held_out(
    samples: int, size: int, condition: str, names: Sequence[str] = shapes.KNOWN_SHAPES
) -> tuple[list[Any], list[np.ndarray]]:
    """Scenes that no training data have, and their control images."""
    scenes = [shapes.draw_scene(index, SEED, names) for index in range(samples)]
    return scenes, [shapes.condition_of(scene, size, condition) for scene in scenes]


def score(
    pictures: Sequence[np.ndarray], scenes: Sequence[Any], controlled: Sequence[Any]
) -> Scores:
    """Scores of pictures, made of the captions of `scenes` and the control of `controlled`."""
    overlaps, colours, kinds = [], [], []
    for picture, scene, control in zip(pictures, scenes, controlled, strict=True):
        mask = shape_scores.segment(picture)
        overlaps.append(shape_scores.iou(mask, shapes.mask_of(control, picture.shape[0])))
        colours.append(shape_scores.colours_of(picture, mask) == (scene.colour, scene.ground))
        kinds.append(shape_scores.shape_of(mask) == scene.shape)
    agree = all(scene is control for scene, control in zip(scenes, controlled))
    return Scores(
        float(np.mean(overlaps)), float(np.mean(colours)), float(np.mean(kinds)) if agree else None
    )


def row(scores: Scores) -> str:
    shape = "" if scores.shape is None else f"{scores.shape:.0%}"
    return f"{scores.iou:>8.3f}{scores.colours:>10.0%}{shape:>8}"


def controlnet_in(run: Path) -> Path:
    """Where a run, or one of its checkpoints, has its ControlNet, or `run` itself."""
    from flux_common.controlnet_folder import EXPORT_FOLDER

    return run / EXPORT_FOLDER if (run / EXPORT_FOLDER).is_dir() else run


class Sampler:
    """Pictures of a base model with a ControlNet, in float32.

    Args:
        base: a pipeline's folder.
        run: has the ControlNet; None: one that does nothing.
        steps: of the sampler.
        lora: a LoRA file, or a folder that has one; None: none.
    """

    def __init__(self, base: Path, run: Path | None, steps: int, lora: Path | None = None) -> None:
        from flux_common import loading
        from flux_controlnet_plugin import controlnet as controlnets
        from flux_controlnet_plugin.images import Painter
        from launcher.training import device

        device.set_up("auto", 0, "graph")
        self._encoders = loading.load_encoders(str(base))
        transformer = loading.load_transformer(str(base))
        if lora is not None:
            from flux_common import lora_file
            from flux_lora_plugin import adapters

            part = lora_file.read(str(lora))["transformer"]
            adapters.load_adapters(transformer, part, str(base))
        if run is None:
            controlnet = controlnets.controlnet_from_transformer(transformer, 1, 0)
        else:
            controlnet = controlnets.load_controlnet(
                str(controlnet_in(run)), transformer_config=transformer.config
            )
        self._controlnet = controlnet
        models = {
            "transformer": transformer,
            "controlnet": controlnet,
            "scheduler": loading.load_scheduler(str(base)),
        }
        self._painter = Painter(models, self._encoders["vae"])
        self._channels = transformer.config.in_channels
        self._latent_channels = self._encoders["vae"].config.latent_channels
        self._steps = steps

    def load(self, run: Path) -> None:
        """Take the weights of another ControlNet of this size."""
        from launcher.training.weights import read_into

        parameters = dict(self._controlnet.parameters_and_names())
        read_into(parameters, sorted(controlnet_in(run).glob("*.safetensors")))

    def encode(self, captions: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """What `Painter.paint` takes of each."""
        from flux_common.prompts import encode_clip, encode_t5, tokenize

        parts = self._encoders
        clip_ids = tokenize(parts["tokenizer"], captions, parts["tokenizer"].model_max_length)
        pooled = encode_clip(parts["text_encoder"], clip_ids)
        ids = tokenize(parts["tokenizer_2"], captions, TOKENS)
        return list(zip(encode_t5(parts["text_encoder_2"], ids), pooled, strict=True))

    def sample(
        self, embeddings: Sequence[Any], controls: Sequence[np.ndarray], scale: float
    ) -> np.ndarray:
        """uint8 `[N, H, W, 3]`. The noise of picture `i` is always the same."""
        from flux_controlnet_plugin.images import Settings

        made = []
        for start in range(0, len(controls), BATCH):
            batch = slice(start, start + BATCH)
            height, width = controls[start].shape[:2]
            settings = Settings(
                height,
                width,
                controlnet_conditioning_scale=scale,
                num_inference_steps=self._steps,
                number=start,
            )
            made.append(self._painter.paint_all(embeddings[batch], controls[batch], settings))
        return np.concatenate(made)

    def noise(self, number: int, size: int) -> dict[str, np.ndarray]:
        """What `sample` draws for the first pictures: `latents` `[N, tokens, channels]`, and
        `control_noise` `[N, C, size / 8, size / 8]` of the control images' posterior."""
        import mindspore as ms
        from mindone.diffusers.utils.mindspore_utils import randn_tensor

        from flux_controlnet_plugin.images import POSTERIOR, Settings, noise_of
        from launcher.training.random import generator

        shape = (1, self._latent_channels, size // 8, size // 8)
        each = [Settings(size, size, number=index) for index in range(number)]
        draws = [generator(one.seed, POSTERIOR, one.number) for one in each]
        return {
            "latents": np.stack([noise_of(one, self._channels) for one in each]),
            "control_noise": np.concatenate(
                [randn_tensor(shape, d, ms.float32).asnumpy() for d in draws]
            ),
        }


def write_grid(
    path: Path, scenes: Sequence[Any], controls: Sequence[Any], pictures: dict[str, np.ndarray]
) -> None:
    """A row for each of the first scenes: the control image, then a picture of each kind."""
    from PIL import Image

    from launcher.training.grid import Row, lay_out

    columns = {"control": controls, **pictures}
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for number, scene in enumerate(scenes[:GRID]):
            files = [Path(folder) / f"{number}-{column}.png" for column in range(len(columns))]
            for file, images in zip(files, columns.values()):
                Image.fromarray(images[number]).save(file)
            rows.append(Row(scene.caption, files))
        lay_out([*columns], rows).save(path)


if __name__ == "__main__":
    main()
