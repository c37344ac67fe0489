"""Images from prompts and control images, by networks that are in memory already.

    painter = Painter(models, vae)
    image = painter.paint(embeddings, control, Settings(height=512, width=512))   # uint8 [H, W, 3]

MindONE's `FluxControlNetPipeline` does the work. It is given the networks of the training step, in
whatever dtypes these have, and embeddings in the place of text encoders. In graph mode the
ControlNet and the transformer are compiled once each for a size, and so is either half of the VAE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flux_common import loading
from flux_common.latents import decode, unpack
from launcher.training.images import resize_and_crop, to_float
from launcher.training.random import generator

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Settings:
    """How an image is made; the names are those of diffusers' pipelines.

    Attributes:
        height, width: in pixels, multiples of 16.
        controlnet_conditioning_scale: what the ControlNet's outputs are multiplied by.
        num_inference_steps: of the Euler method, at least 1.
        guidance_scale: that a guidance-distilled model is told.
        control_mode: kind of the control image, for a union of ControlNets; None: it is none.
        seed, number: the noise is a function of these two and the size, so that the same image
            comes out whatever was made before it.
    """

    height: int
    width: int
    controlnet_conditioning_scale: float = 1.0
    num_inference_steps: int = 28
    guidance_scale: float = 3.5
    control_mode: int | None = None
    seed: int = 0
    number: int = 0


#: The stream of random numbers that the control images' latents are drawn with.
POSTERIOR = "posterior of the control image"


def noise_of(settings: Settings, channels: int) -> np.ndarray:
    """float32 `[H/16 * W/16, channels]`: packed latents of standard normal noise."""
    import numpy as np

    tokens = settings.height // 16 * (settings.width // 16)
    draws = generator(settings.seed, "image noise", settings.number)
    return draws.standard_normal((tokens, channels), dtype=np.float32)


class Painter:
    """Makes images, one at a time or several of one size at once.

    Args:
        models: `transformer`, `controlnet` and `scheduler`; the latter is left as it is. Values of
            parameters that change between two images count in the second.
        vae: an `AutoencoderKL`.
    """

    def __init__(self, models: Mapping[str, Any], vae: Any) -> None:
        from launcher.training.precision import activation_dtype

        with loading.quiet():
            from mindone.diffusers import FluxControlNetPipeline

            scheduler = models["scheduler"]
            self._pipeline = FluxControlNetPipeline(
                scheduler=type(scheduler).from_config(scheduler.config),
                vae=vae,
                text_encoder=None,
                tokenizer=None,
                text_encoder_2=None,
                tokenizer_2=None,
                transformer=models["transformer"],
                controlnet=models["controlnet"],
            )
        # With a convolutional embedder, XLabs' ControlNets, whose outputs are used in turn.
        in_turn = models["controlnet"].input_hint_block is not None
        self._pipeline.transformer = _CompiledOnce(models["transformer"], in_turn)
        self._pipeline.set_progress_bar_config(disable=True)
        self._vae = vae
        self._channels = models["transformer"].config.in_channels
        self._dtype = activation_dtype(models["transformer"])

    def paint(
        self, embeddings: tuple[np.ndarray, np.ndarray], control: np.ndarray, settings: Settings
    ) -> np.ndarray:
        """Make an image.

        Args:
            embeddings: of the prompt, `[T, joint_attention_dim]` and `[pooled_projection_dim]`.
            control: uint8 `[H, W, 3]`; resized and cropped as for training.

        Returns:
            uint8 `[height, width, 3]`.
        """
        return self.paint_all([embeddings], [control], settings)[0]

    def paint_all(
        self,
        embeddings: Sequence[tuple[np.ndarray, np.ndarray]],
        controls: Sequence[np.ndarray],
        settings: Settings,
    ) -> np.ndarray:
        """Make as many images at once, in a graph for that many.

        Args:
            embeddings, controls: as for `paint`, one each.
            settings: the first image has its number, the others those that follow.

        Returns:
            uint8 `[B, height, width, 3]`: but for rounding, what `paint` makes one by one.
        """
        return decode(self._vae, self.latents(embeddings, controls, settings))

    def latents(
        self,
        embeddings: Sequence[tuple[np.ndarray, np.ndarray]],
        controls: Sequence[np.ndarray],
        settings: Settings,
    ) -> np.ndarray:
        """What `paint_all` decodes, of the same arguments.

        Returns:
            float32 `[B, C, height / 8, width / 8]`, normalised.

        Raises:
            ValueError: there are not as many embeddings as control images.
        """
        if len(embeddings) != len(controls):
            raise ValueError(f"{len(embeddings)} embeddings for {len(controls)} control images")
        import mindspore as ms
        import numpy as np

        height, width = settings.height, settings.width
        each = [replace(settings, number=settings.number + i) for i in range(len(controls))]

        def tensor(arrays: Iterable[np.ndarray]) -> Any:
            return ms.Tensor(np.stack([*arrays]).astype(np.float32)).astype(self._dtype)

        packed = self._pipeline(
            prompt_embeds=tensor(embeds for embeds, _ in embeddings),
            pooled_prompt_embeds=tensor(pooled for _, pooled in embeddings),
            control_image=ms.Tensor(
                np.stack([to_float(resize_and_crop(image, height, width)) for image in controls])
            ),
            # A tensor: of a number, every value would be compiled for.
            controlnet_conditioning_scale=ms.Tensor(
                settings.controlnet_conditioning_scale, ms.float32
            ).astype(self._dtype),
            height=height,
            width=width,
            latents=tensor(noise_of(one, self._channels) for one in each),
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            control_mode=settings.control_mode,
            generator=[generator(one.seed, POSTERIOR, one.number) for one in each],
            output_type="latent",
        )[0]
        return unpack(packed.astype(ms.float32).asnumpy(), height // 8, width // 8)


#: What the pipeline calls the transformer with, besides what comes from the ControlNet.
_INPUTS = (
    "hidden_states",
    "timestep",
    "guidance",
    "pooled_projections",
    "encoder_hidden_states",
    "txt_ids",
    "img_ids",
)


class _CompiledOnce:
    """Stands for the transformer in a pipeline.

    The pipeline hands on the outputs of the ControlNet's single blocks as a plain list, whose
    values MindSpore then takes for constants: it would compile the transformer at every step.
    """

    def __init__(self, transformer: Any, in_turn: bool) -> None:
        self._transformer = transformer
        self._in_turn = in_turn
        self._forward = _forward_cell(transformer, in_turn)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transformer, name)

    def __call__(
        self,
        *,
        controlnet_block_samples: Any,
        controlnet_single_block_samples: Any,
        joint_attention_kwargs: Any,
        return_dict: bool,
        controlnet_blocks_repeat: bool,
        **arguments: Any,
    ) -> Any:
        """As the pipeline calls it; what it gives here besides `arguments` never differs."""
        import mindspore as ms

        assert not joint_attention_kwargs and not return_dict
        assert controlnet_blocks_repeat == self._in_turn
        samples = (controlnet_block_samples, controlnet_single_block_samples)
        variable = (None if part is None else ms.mutable(tuple(part)) for part in samples)
        inputs = (arguments[name] for name in _INPUTS)
        return self._forward(*inputs, *variable)


def _forward_cell(transformer: Any, in_turn: bool) -> Any:
    """A cell around a transformer: one whose class was replaced to emulate bfloat16 does not take
    sequences that are variable as the outermost cell.

    Args:
        in_turn: each block takes the next output of the ControlNet, from the first on again when
            there are no more; else several blocks in a row take the same.
    """
    from mindspore import nn

    class Forward(nn.Cell):
        def __init__(self) -> None:
            super().__init__(auto_prefix=False)
            self.transformer = transformer

        def construct(
            self,
            hidden_states: Any,
            timestep: Any,
            guidance: Any,
            pooled_projections: Any,
            encoder_hidden_states: Any,
            txt_ids: Any,
            img_ids: Any,
            block_samples: Any,
            single_block_samples: Any,
        ) -> Any:
            return self.transformer(
                hidden_states=hidden_states,
                timestep=timestep,
                guidance=guidance,
                pooled_projections=pooled_projections,
                encoder_hidden_states=encoder_hidden_states,
                txt_ids=txt_ids,
                img_ids=img_ids,
                controlnet_block_samples=block_samples,
                controlnet_single_block_samples=single_block_samples,
                return_dict=False,
                controlnet_blocks_repeat=in_turn,
            )

    return Forward()


def load_vae(section: Any, precision: Any) -> Any:
    """The VAE of a run, cast as its networks are, frozen and with its values.

    Args:
        section: the configuration's `model`.
        precision: the configuration's `precision`.
    """
    from launcher.training import weights
    from launcher.training.freeze import freeze
    from launcher.training.precision import cast_frozen, dtype_of

    with loading.deferred():
        vae = loading.load_vae(
            section.pretrained_model_name_or_path,
            revision=section.revision,
            variant=section.variant,
        )
    freeze([vae])
    cast_frozen(vae, dtype_of(precision.mixed_precision))
    weights.load([vae])
    return vae
