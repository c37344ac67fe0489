"""A FLUX.1 pipeline folder of a small size, untrained.

    python examples/tiny_flux/skeleton.py FOLDER

FLUX.1-dev's structure: CLIP and T5 encoders with tokenizers of their own, a 16-channel VAE,
double- and single-stream blocks, guidance embedding, the same scheduler. All weights are drawn with
the initialisers of MindONE's models; the tokenizers know the words of the captions of shapes.py.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "quickstart"))

import shapes

from launcher.training import atomic

#: The width of text embeddings.
TEXT_WIDTH = 64

#: The version of diffusers whose names these are.
DIFFUSERS = "0.35.2"

TRANSFORMER = {
    "_diffusers_version": DIFFUSERS,
    "attention_head_dim": 16,
    "axes_dims_rope": [4, 4, 8],
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": TEXT_WIDTH,
    "num_attention_heads": 12,
    "num_layers": 2,
    "num_single_layers": 3,
    "patch_size": 1,
    "pooled_projection_dim": TEXT_WIDTH,
}

VAE = {
    "_diffusers_version": DIFFUSERS,
    "act_fn": "silu",
    "block_out_channels": [16, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 16,
    "layers_per_block": 1,
    "mid_block_add_attention": True,
    "norm_num_groups": 8,
    "out_channels": 3,
    "sample_size": 64,
    # FLUX.1's; `make.py` measures those of the trained latents.
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}

CLIP = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 2 * TEXT_WIDTH,
    "max_position_embeddings": 77,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "projection_dim": TEXT_WIDTH,
}

T5 = {
    "d_ff": 2 * TEXT_WIDTH,
    "d_kv": 16,
    "d_model": TEXT_WIDTH,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
    "num_heads": 4,
    "num_layers": 2,
    "use_cache": False,
}

#: FLUX.1-dev's.
SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": DIFFUSERS,
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}

INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": DIFFUSERS,
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_skeleton(folder: Path, seed: int = 0) -> None:
    """Write the pipeline folder; it appears whole or not at all. `folder` is new."""
    with atomic.folder(folder) as work:
        write_json(work / "model_index.json", INDEX)
        (work / "scheduler").mkdir()
        write_json(work / "scheduler" / "scheduler_config.json", SCHEDULER)
        captions = sorted({shapes.draw_scene(i, shapes=shapes.SHAPES).caption for i in range(4000)})
        clip_size = _write_clip_tokenizer(work / "tokenizer", captions)
        t5_size = _write_t5_tokenizer(work / "tokenizer_2", captions)
        _write_models(work, clip_size, t5_size, seed)


def _write_models(work: Path, clip_size: int, t5_size: int, seed: int) -> None:
    import mindspore as ms

    from flux_common.export import export_model
    from flux_common.loading import file_names, quiet
    from launcher.training import device
    from launcher.training.weights import write_parameters

    device.set_up("CPU", 0, "pynative")
    device.supply_what_lacks()

    def drawn(make: Callable[[Any], Any], config: Any) -> Any:
        ms.set_seed(seed)  # for each: the size of one part changes no other
        return make(config)

    with quiet():
        from mindone.diffusers import AutoencoderKL, FluxTransformer2DModel
        from mindone.transformers import CLIPTextModel, T5EncoderModel
        from transformers import CLIPTextConfig, T5Config

        export_model(drawn(FluxTransformer2DModel.from_config, TRANSFORMER), work / "transformer")
        export_model(drawn(AutoencoderKL.from_config, VAE), work / "vae")
        encoders = {
            "text_encoder": drawn(CLIPTextModel, CLIPTextConfig(vocab_size=clip_size, **CLIP)),
            "text_encoder_2": drawn(T5EncoderModel, T5Config(vocab_size=t5_size, **T5)),
        }
        for name, model in encoders.items():
            (work / name).mkdir()
            model.config.architectures = [type(model).__name__]
            model.config.save_pretrained(work / name)
            write_parameters(work / name / "model.safetensors", file_names(model), dtype="fp32")


def _write_clip_tokenizer(folder: Path, captions: list[str]) -> int:
    """Byte pairs, as CLIP's; returns the size of the vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trained.train_from_iterator(
        captions,
        trainers.BpeTrainer(vocab_size=10_000, end_of_word_suffix="</w>", show_progress=False),
    )
    merges = json.loads(trained.to_str())["model"]["merges"]
    pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in merges]
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(p) for p in pairs)]
    # The end has the highest number: CLIP's text model finds it by that.
    vocabulary = {word: number for number, word in enumerate([*words, start, end])}
    folder.mkdir()
    write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )
    tokenizer.save_pretrained(folder)
    return len(vocabulary)


def _write_t5_tokenizer(folder: Path, captions: list[str]) -> int:
    """A unigram model, as T5's, of whole words and, for others, letters; returns the size of the
    vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    words = sorted({word for caption in captions for word in caption.split()})
    pieces = [(name, 0.0) for name in special]
    pieces += [(f"▁{word}", -5.0) for word in words]  # log-probabilities: a word beats its letters
    pieces += [(letter, -10.0) for letter in ["▁", *string.ascii_letters, *string.digits]]
    model = Tokenizer(models.Unigram(pieces, unk_id=special.index("<unk>")))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    model.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", special.index("</s>"))]
    )
    tokenizer = T5TokenizerFast(tokenizer_object=model, model_max_length=512)
    folder.mkdir()
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def write_json(path: Path, content: Any) -> None:
    """As diffusers writes its configurations."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description="Write a small, untrained FLUX.1 pipeline.")
    parser.add_argument("folder", type=Path, help="where to write; a new folder")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"{options.folder} exists; give a new folder")
    write_skeleton(options.folder, options.seed)
    print(options.folder)


if __name__ == "__main__":
    main()
