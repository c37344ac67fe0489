"""The other side of `throughput.py`: mindone's `train_controlnet_flux.py`, as that trains.

python benchmarks/throughput_mindone.py PIPELINE DATA BATCH_SIZE SIDE TOKENS DOUBLES SINGLES

Written anew after that script's way, not copied. The same:

- captions are encoded once by `Dataset.map`, which keeps embeddings, and the position ids of their
  tokens, as lists of float32 in an Arrow file; with each sample they come back as Python lists;
- images are opened, resized, cropped and normalised with each sample, by `mindspore.dataset`'s
  transforms; a `GeneratorDataset` with one worker makes batches ahead;
- VAE, ControlNet, transformer, backward pass, clipping and update are one graph (it sets
  GRAPH_MODE), around it mindone's own `prepare_train_network` with its fixed loss scale.

In its favour: nothing is logged, no progress is shown, position ids are a constant, and the
kernels are the same as on our side (`launcher.cpu`): without them it does not run on a CPU at all.

`DOUBLES` and `SINGLES` are layers of the ControlNet. A worker as in `blocks.py`, but
that it answers with the seconds waited for a batch where others have losses.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blocks

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from launcher import quiet  # noqa: E402

quiet.install(verbose=False)

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import mint, nn, ops  # noqa: E402

#: Calls of each part by itself, and how many of them count: MindSpore's first dozens are slower.
PROFILED, COUNTED = 45, 15


class Encode(nn.Cell):
    """Pixels `[B, 3, H, W]` to packed latents `[B, H/16 * W/16, 64]`, drawn from the posterior."""

    def __init__(self, vae: nn.Cell) -> None:
        super().__init__()
        self.vae = vae
        self.shift = vae.config.shift_factor
        self.scale = vae.config.scaling_factor

    def construct(self, pixels):
        moments = self.vae.encode(pixels)[0]
        latents = (self.vae.diag_gauss_dist.sample(moments) - self.shift) * self.scale
        batch, channels, height, width = latents.shape
        latents = latents.reshape((batch, channels, height // 2, 2, width // 2, 2))
        latents = latents.permute((0, 2, 4, 1, 3, 5))
        return latents.reshape((batch, height * width // 4, channels * 4))


class EncodeBoth(nn.Cell):
    """What of a step is the VAE's: target and condition."""

    def __init__(self, vae: nn.Cell) -> None:
        super().__init__()
        self.encode = Encode(vae)

    def construct(self, pixels, conditioning_pixels):
        return self.encode(pixels), self.encode(conditioning_pixels)


class Loss(nn.Cell):
    """Everything from pixels and embeddings to the loss, random draws included."""

    def __init__(
        self,
        vae: nn.Cell,
        transformer: nn.Cell,
        controlnet: nn.Cell,
        scheduler: Any,
        image_ids: np.ndarray,
    ) -> None:
        super().__init__()
        self.encode = Encode(vae)
        self.transformer = transformer
        self.controlnet = controlnet
        self.sigmas = ms.Tensor(scheduler.sigmas.asnumpy(), ms.float32)
        self.timesteps = ms.Tensor(scheduler.timesteps.asnumpy(), ms.float32)
        self.count = int(scheduler.config.num_train_timesteps)
        self.image_ids = ms.Tensor(image_ids, ms.float32)

    def construct(self, pixels, conditioning_pixels, prompt_embeds, pooled_prompt_embeds, text_ids):
        latents = self.encode(pixels)
        control_latents = self.encode(conditioning_pixels)
        batch = latents.shape[0]
        noise = mint.randn_like(latents)
        density = mint.sigmoid(mint.normal(mean=0.0, std=1.0, size=(batch,)))
        indices = (density * self.count).astype(ms.int32)
        timesteps = self.timesteps[indices] / 1000
        sigmas = self.sigmas[indices].reshape((batch, 1, 1))
        noisy = sigmas * noise + (1.0 - sigmas) * latents
        guidance = mint.full((batch,), 3.5, dtype=ms.float32)
        double_samples, single_samples = self.controlnet(
            hidden_states=noisy,
            controlnet_cond=control_latents,
            timestep=timesteps,
            guidance=guidance,
            pooled_projections=pooled_prompt_embeds,
            encoder_hidden_states=prompt_embeds,
            txt_ids=text_ids[0],
            img_ids=self.image_ids,
            return_dict=False,
        )
        prediction = self.transformer(
            hidden_states=noisy,
            timestep=timesteps,
            guidance=guidance,
            pooled_projections=pooled_prompt_embeds,
            encoder_hidden_states=prompt_embeds,
            controlnet_block_samples=double_samples,
            controlnet_single_block_samples=single_samples,
            txt_ids=text_ids[0],
            img_ids=self.image_ids,
            return_dict=False,
        )[0]
        return ops.square(prediction - (noise - latents)).mean()


def prepare() -> tuple[Callable[[int], float], dict[str, Any]]:
    """Returns the step, which returns the seconds that it waited for its batch, and where the time
    of a step goes: milliseconds by name."""
    pipeline, data = sys.argv[1:3]
    batch_size, side, tokens, double_layers, single_layers = map(int, sys.argv[3:])

    from flux_common import loading
    from flux_common.latents import image_ids
    from flux_controlnet_plugin.controlnet import controlnet_from_transformer
    from launcher.training import device
    from launcher.training.freeze import set_trainable

    device.set_up("CPU", 0, "graph")
    with loading.quiet():
        from mindone.diffusers.training_utils import prepare_train_network

    rows = table(Path(data), loading.load_encoders(pipeline), side, tokens)
    vae, transformer = loading.load_vae(pipeline), loading.load_transformer(pipeline)
    controlnet = controlnet_from_transformer(transformer, double_layers, single_layers)
    for part in (vae, transformer):
        set_trainable(part, False)
    set_trainable(controlnet, True)
    latent_side = side // 16
    loss = Loss(
        vae,
        transformer,
        controlnet,
        loading.load_scheduler(pipeline),
        image_ids(latent_side, latent_side),
    ).set_train(True)
    optimizer = nn.AdamWeightDecay(
        controlnet.trainable_params(), learning_rate=1e-3, weight_decay=1e-2
    )
    with loading.quiet():
        train_step = prepare_train_network(
            loss,
            optimizer=optimizer,
            scale_sense=nn.FixedLossScaleUpdateCell(loss_scale_value=2**12),
            clip_grad=True,
            clip_norm=1.0,
        )
    feed = batches(rows, batch_size)

    def step(number: int) -> float:
        start = time.perf_counter()
        batch = next(feed)
        waited = time.perf_counter() - start
        loss = float(train_step(*batch)[0].asnumpy())
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss of step {number} is {loss}")
        return waited

    ready = [tensor.copy() for tensor in next(feed)]
    encode = EncodeBoth(vae)
    encode.set_train(False)

    def encode_ready() -> None:
        for latents in encode(*ready[:2]):
            latents.asnumpy()

    return step, in_turn(
        {
            "step": lambda: train_step(*ready)[0].asnumpy(),
            "vae": encode_ready,
            "data": lambda: collate([rows[n] for n in range(batch_size)]),
        }
    )


def in_turn(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median milliseconds of each call. They take turns, so that what else the machine does hits
    all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(PROFILED):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values[-COUNTED:]) for name, values in times.items()}


def table(data: Path, encoders: dict[str, Any], side: int, tokens: int) -> Any:
    """The data set: embeddings in Arrow, images opened and transformed with each sample."""
    import tempfile

    from datasets import disable_progress_bars, load_dataset
    from mindspore.dataset import transforms, vision
    from PIL import Image

    from flux_common.prompts import encode_clip, encode_t5, tokenize

    disable_progress_bars()
    # Kept until the process ends; Arrow maps its files.
    table.folder = folder = tempfile.TemporaryDirectory()  # type: ignore[attr-defined]
    rows = load_dataset(
        "json", data_files=str(data / "metadata.jsonl"), split="train", cache_dir=folder.name
    )

    def embed(examples: dict[str, list[Any]]) -> dict[str, Any]:
        captions = examples["text"]
        length = encoders["tokenizer"].model_max_length
        return {
            "prompt_embeds": encode_t5(
                encoders["text_encoder_2"], tokenize(encoders["tokenizer_2"], captions, tokens)
            ),
            "pooled_prompt_embeds": encode_clip(
                encoders["text_encoder"], tokenize(encoders["tokenizer"], captions, length)
            ),
            "text_ids": np.zeros((len(captions), tokens, 3), np.float32),
        }

    rows = rows.map(embed, batched=True, batch_size=16, new_fingerprint="embedded")
    transform = transforms.Compose(
        [
            vision.Resize(side, interpolation=vision.Inter.BILINEAR),
            vision.CenterCrop(side),
            vision.ToTensor(),
            vision.Normalize([0.5], [0.5], is_hwc=False),
        ]
    )

    def read(examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for name, column in (
            ("pixel_values", "file_name"),
            ("conditioning_pixel_values", "conditioning_image_file_name"),
        ):
            images = [Image.open(data / file).convert("RGB") for file in examples[column]]
            examples[name] = [transform(image)[0] for image in images]
        return examples

    return rows.with_transform(read)


COLUMNS = (
    "pixel_values", "conditioning_pixel_values", "prompt_embeds", "pooled_prompt_embeds",
    "text_ids",
)  # fmt: skip


def collate(examples: Any) -> tuple[np.ndarray, ...]:
    return tuple(
        np.stack([example[name] for example in examples]).astype(np.float32) for name in COLUMNS
    )


class Rows:
    """Random access, as `GeneratorDataset` wants it."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __getitem__(self, index: Any) -> Any:
        return self.rows[int(index)]

    def __len__(self) -> int:
        return len(self.rows)


def batches(rows: Any, batch_size: int) -> Iterator[list[ms.Tensor]]:
    """Batches without end, made ahead."""
    from mindspore.dataset import GeneratorDataset

    epochs = 10_000
    loader = GeneratorDataset(
        Rows(rows), column_names=["example"], shuffle=True, num_parallel_workers=1
    ).batch(
        batch_size,
        per_batch_map=lambda examples, info: collate(examples),
        input_columns=["example"],
        output_columns=list(COLUMNS),
        num_parallel_workers=1,
    )
    iterator = loader.create_tuple_iterator(num_epochs=epochs)
    for _ in range(epochs):
        yield from iterator


if __name__ == "__main__":
    blocks.serve(prepare)
