"""What is wrong with a pipeline folder is found, and named, without loading anything."""

import json
import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flux_common import pipeline_folder
from flux_common.pipeline_folder import problems, weight_files
from launcher.training.errors import UserError

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def pipeline(tiny_flux, tmp_path):
    """A copy to damage."""
    return shutil.copytree(tiny_flux, tmp_path / "tiny-flux")


def edit(file, **changes):
    """Change options in a JSON file; None removes one."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in content.items() if v != "REMOVE"}))


def only(found, *fragments):
    """The one problem, which says all of this."""
    assert len(found) == 1, found
    for fragment in fragments:
        assert fragment in found[0]
    return found[0]


def shard(pipeline, stem="diffusion_pytorch_model", label="", index_name=None):
    """Split the transformer's weights in two files with an index."""
    folder = pipeline / "transformer"
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    names = sorted(weights)
    weight_map = {}
    for number, part in ((1, names[: len(names) // 2]), (2, names[len(names) // 2 :])):
        file = f"{stem}{label}-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    index = folder / (index_name or f"{stem}.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def test_a_good_pipeline_has_no_problems(pipeline):
    assert problems(str(pipeline)) == []


def test_no_framework_is_imported(tiny_flux):
    code = (
        "import sys; from flux_common.pipeline_folder import problems;"
        f"assert problems({str(tiny_flux)!r}) == [];"
        "heavy = {'mindspore', 'mindone', 'transformers', 'numpy', 'huggingface_hub'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The path itself


def test_missing_folder_names_a_near_one(pipeline):
    wrong = str(pipeline.parent / "tiny_flux")
    only(problems(wrong), "model.pretrained_model_name_or_path", wrong, f"mean {str(pipeline)!r}?")


@pytest.mark.parametrize("path", ["./none", "/none/at/all", "none", "a/b/c", "../none", "~/none-x"])
def test_what_cannot_be_a_hub_name_is_a_missing_folder(path):
    only(problems(path), f"there is no folder {path!r}")


def test_hub_name_is_looked_up(monkeypatch, pipeline):
    from huggingface_hub import errors

    def download(name, revision, allow_patterns, ignore_patterns):
        assert (name, revision) == ("org/name", "r1")
        assert not any("safetensors" in pattern for pattern in allow_patterns)
        if not pipeline.exists():
            raise errors.LocalEntryNotFoundError("no network")
        return str(pipeline)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for weights in pipeline.glob("*/*.safetensors"):
        weights.unlink()
    assert problems("org/name", revision="r1", variant="bf16") == []
    file = pipeline / "transformer" / "config.json"
    file.write_text(file.read_text().replace("FluxTransformer2DModel", "SD3Transformer2DModel"))
    only(problems("org/name", revision="r1"), "describes a SD3Transformer2DModel")
    pipeline.rename(pipeline.with_name("elsewhere"))
    only(problems("org/name", revision="r1"), "'org/name' is not in the hub's cache")


def test_empty_path():
    only(problems(" "), "is empty")


def test_home_is_expanded(pipeline, monkeypatch):
    monkeypatch.setenv("HOME", str(pipeline.parent))
    assert problems("~/tiny-flux") == []
    assert pipeline_folder.locate("~/tiny-flux", ["vae"]) == pipeline


def test_single_file_checkpoint(pipeline):
    only(problems(str(pipeline / TRANSFORMER)), "a single file", "diffusers' layout")


def test_folder_with_a_single_file_checkpoint(pipeline, tmp_path):
    (tmp_path / "models").mkdir()
    shutil.copy(pipeline / TRANSFORMER, tmp_path / "models" / "flux1-dev.safetensors")
    only(problems(str(tmp_path / "models")), "flux1-dev.safetensors", "Single-file")


def test_part_given_for_the_whole(pipeline):
    only(problems(str(pipeline / "transformer")), f"Give the folder above: {str(pipeline)!r}")


def test_folder_above_the_pipeline(pipeline):
    only(problems(str(pipeline.parent)), f"Give {str(pipeline)!r}")


def test_cache_folder_of_the_hub(pipeline, tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    pipeline.rename(snapshot)
    only(problems(str(snapshot.parent.parent)), f"Give {str(snapshot)!r}")


def test_revision_of_a_local_folder(pipeline):
    only(problems(str(pipeline), revision="main"), "model.revision is 'main'", "no revisions")


# Parts


def test_missing_subfolders_are_one_problem(pipeline):
    shutil.rmtree(pipeline / "vae")
    (pipeline / "scheduler").rename(pipeline / "schedulers")
    only(problems(str(pipeline)), "no subfolders vae, scheduler", "is 'schedulers' meant")


def test_only_the_parts_asked_for_are_checked(pipeline):
    shutil.rmtree(pipeline / "vae")
    assert problems(str(pipeline), ["transformer", "scheduler"]) == []


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "vae", "transformer"])
def test_missing_config_and_weights(pipeline, part):
    (pipeline / part / "config.json").unlink()
    only(problems(str(pipeline)), f"{part}/config.json is missing")


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "vae", "transformer"])
def test_missing_weights(pipeline, part):
    next((pipeline / part).glob("*.safetensors")).unlink()
    only(problems(str(pipeline)), f"{part} has no weights in safetensors format")


def test_truncated_weights(pipeline):
    file = pipeline / TRANSFORMER
    file.write_bytes(file.read_bytes()[:-100])
    only(problems(str(pipeline)), str(file), "truncated", "again")


def test_several_faults_are_reported_together(pipeline):
    (pipeline / "vae" / "config.json").write_text("{")
    (pipeline / TRANSFORMER).write_bytes(b"")
    (pipeline / "tokenizer" / "merges.txt").unlink()
    found = problems(str(pipeline))
    assert len(found) == 3
    assert any("vae/config.json is damaged: not valid JSON, line 1" in text for text in found)


@pytest.mark.parametrize(
    ("part", "class_name"),
    [
        ("transformer", "SD3Transformer2DModel"),
        ("transformer", "UNet2DConditionModel"),
        ("transformer", "Flux2Transformer2DModel"),
        ("vae", "AutoencoderTiny"),
        ("scheduler", "EulerDiscreteScheduler"),
    ],
)
def test_config_of_another_architecture(pipeline, part, class_name):
    file = "scheduler_config.json" if part == "scheduler" else "config.json"
    edit(pipeline / part / file, _class_name=class_name)
    only(problems(str(pipeline)), str(pipeline / part / file), class_name, "FLUX.1-dev")


def test_text_encoders_of_another_architecture(pipeline):
    edit(pipeline / "text_encoder" / "config.json", architectures=["CLIPTextModelWithProjection"])
    edit(
        pipeline / "text_encoder_2" / "config.json", architectures=["UMT5Model"], model_type="umt5"
    )
    found = problems(str(pipeline))
    assert len(found) == 2
    assert "CLIPTextModelWithProjection" in found[0]
    assert "UMT5Model" in found[1]


@pytest.mark.parametrize("class_name", ["StableDiffusion3Pipeline", "Flux2Pipeline"])
def test_another_pipeline_is_one_problem(pipeline, class_name):
    edit(pipeline / "model_index.json", _class_name=class_name)
    edit(pipeline / "transformer" / "config.json", _class_name="SD3Transformer2DModel")
    only(problems(str(pipeline)), class_name, "not FLUX.1")


@pytest.mark.parametrize(
    ("file", "change", "fragment"),
    [
        ("transformer/config.json", {"num_layers": 3}, "2 layers transformer_blocks.N"),
        ("transformer/config.json", {"num_single_layers": 1}, "num_single_layers is 1"),
        ("transformer/config.json", {"num_attention_heads": 4}, "x_embedder.weight has the shape"),
        ("transformer/config.json", {"num_attention_heads": "two"}, "'two', not a whole number"),
        ("transformer/config.json", {"axes_dims_rope": [4, 4, 4]}, "does not add up"),
        ("transformer/config.json", {"guidance_embeds": False}, "guidance_embeds is false"),
        ("text_encoder/config.json", {"num_hidden_layers": 12}, "num_hidden_layers is 12"),
        ("text_encoder_2/config.json", {"num_heads": 8}, "SelfAttention.q.weight"),
        ("vae/config.json", {"shift_factor": "REMOVE"}, "shift_factor is None"),
        ("vae/config.json", {"block_out_channels": [8, 16]}, "four blocks"),
        ("transformer/config.json", {"quantization_config": {"bits": 4}}, "quantized"),
    ],
)
def test_config_and_weights_that_do_not_belong_together(pipeline, file, change, fragment):
    edit(pipeline / file, **change)
    only(problems(str(pipeline)), str((pipeline / file).parent), fragment)


def test_defaults_of_the_class_are_filled_in(pipeline):
    """FLUX.1-dev's own config.json leaves out axes_dims_rope."""
    edit(pipeline / "transformer" / "config.json", axes_dims_rope="REMOVE")
    only(problems(str(pipeline)), "axes_dims_rope is [16, 56, 56]", "attention_head_dim, 16")


def test_original_weight_names(pipeline):
    weights = {"double_blocks.0.img_attn.qkv.weight": np.zeros((6, 2), np.float32)}
    save_file(weights, pipeline / TRANSFORMER)
    only(problems(str(pipeline)), "original single-file checkpoint")


def test_quantized_weights(pipeline):
    weights = load_file(pipeline / TRANSFORMER)
    weights["x_embedder.weight"] = weights["x_embedder.weight"].astype(np.int8)
    save_file(weights, pipeline / TRANSFORMER)
    only(problems(str(pipeline)), "stored as I8", "quantized")


def test_half_precision_is_fine(pipeline):
    weights = load_file(pipeline / TRANSFORMER)
    save_file({n: w.astype(ml_dtypes.bfloat16) for n, w in weights.items()}, pipeline / TRANSFORMER)
    assert problems(str(pipeline)) == []


# Variants, shards, old formats


def test_variant(pipeline):
    file = pipeline / TRANSFORMER
    file.rename(file.with_name("diffusion_pytorch_model.bf16.safetensors"))
    only(problems(str(pipeline), ["transformer"]), "has the variant bf16. Set model.variant")
    assert problems(str(pipeline), ["transformer"], variant="bf16") == []
    only(problems(str(pipeline), ["transformer"], variant="fp16"), "has the variant bf16")
    only(problems(str(pipeline), ["vae"], variant="bf16"), "Leave out model.variant")


def test_only_bin_weights(pipeline):
    (pipeline / TRANSFORMER).rename(pipeline / "transformer" / "diffusion_pytorch_model.bin")
    only(problems(str(pipeline)), "diffusion_pytorch_model.bin", "save_pretrained")


def test_shards(pipeline):
    index = shard(pipeline)
    assert problems(str(pipeline)) == []
    assert [p.name[-22:] for p in weight_files(index.parent)] == [
        "00001-of-00002.safetensors"[-22:],
        "00002-of-00002.safetensors"[-22:],
    ]


@pytest.mark.parametrize(
    "index_name",
    [
        "diffusion_pytorch_model.safetensors.index.bf16.json",
        "diffusion_pytorch_model.safetensors.bf16.index.json",
    ],
)
def test_shards_of_a_variant(pipeline, index_name):
    shard(pipeline, label=".bf16", index_name=index_name)
    assert problems(str(pipeline), ["transformer"], variant="bf16") == []


def test_missing_shard(pipeline):
    shard(pipeline)
    (pipeline / "transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    only(problems(str(pipeline)), "lacks 1 of 2 weight files", "model-00002-of-00002")


def test_shard_without_what_the_index_promises(pipeline):
    """mindone trusts the index, and keeps a random weight."""
    shard(pipeline)
    file = pipeline / "transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors"
    weights = load_file(file)
    del weights["x_embedder.weight"]
    save_file(weights, file)
    only(problems(str(pipeline)), "does not hold x_embedder.weight")


def test_index_without_weight_map(pipeline):
    shard(pipeline).write_text("{}")
    only(problems(str(pipeline)), "no weight_map")


# Parts against each other


def test_channels(pipeline):
    """A FLUX.1 Canny transformer takes the control image's latents too: 128 channels."""
    edit(pipeline / "transformer" / "config.json", in_channels=128, out_channels=64)
    weights = load_file(pipeline / TRANSFORMER)
    weights["x_embedder.weight"] = np.zeros((32, 128), np.float32)
    save_file(weights, pipeline / TRANSFORMER)
    only(problems(str(pipeline)), "128 channels", "make 64", "Canny, Depth or Fill")


def test_text_widths(pipeline):
    edit(pipeline / "transformer" / "config.json", joint_attention_dim=48, pooled_projection_dim=40)
    weights = load_file(pipeline / TRANSFORMER)
    weights["context_embedder.weight"] = np.zeros((32, 48), np.float32)
    name = "time_text_embed.text_embedder.linear_1.weight"
    weights[name] = np.zeros((32, 40), np.float32)
    save_file(weights, pipeline / TRANSFORMER)
    found = problems(str(pipeline))
    assert len(found) == 2
    assert "width 48" in found[0]
    assert "width 40" in found[1]


def test_tokenizers_swapped(pipeline):
    (pipeline / "tokenizer").rename(pipeline / "x")
    (pipeline / "tokenizer_2").rename(pipeline / "tokenizer")
    (pipeline / "x").rename(pipeline / "tokenizer_2")
    found = problems(str(pipeline))
    assert len(found) == 2
    assert all(text.count("Tokenizer") >= 2 or "has no" in text for text in found)


def test_tokenizer_with_more_tokens_than_embeddings(pipeline):
    file = pipeline / "tokenizer_2" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] += [["x", 0.0]] * 100
    file.write_text(json.dumps(content))
    only(problems(str(pipeline)), "tokenizer_2 has token numbers up to 309", "256 tokens")


# The hub


def test_download_asks_for_the_variant_only(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **options: asked.update(options, name=name) or str(tmp_path),
    )
    files = {
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
        "transformer/diffusion_pytorch_model.fp16.safetensors",
        "transformer/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.safetensors",
        "flux1-dev.safetensors",
        "README.md",
    }

    def fetched(variant, parts=("transformer",)):
        assert pipeline_folder.locate("org/name", parts, "r1", variant) == tmp_path
        assert (asked["name"], asked["revision"]) == ("org/name", "r1")
        kept = huggingface_hub.utils.filter_repo_objects(
            sorted(files),
            allow_patterns=asked["allow_patterns"],
            ignore_patterns=asked["ignore_patterns"],
        )
        return {name.removeprefix("transformer/diffusion_pytorch_model") for name in kept}

    configs = {"transformer/config.json", ".safetensors.index.json"}
    assert fetched(None) == configs | {"-00001-of-00003.safetensors"}
    assert fetched("fp16") == configs | {".fp16.safetensors", ".fp16-00001-of-00002.safetensors"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "is gated: accept its licence"),
        ("RepositoryNotFoundError", "is not on the hub, or is private"),
        ("RevisionNotFoundError", "has no revision 'r1'"),
        ("LocalEntryNotFoundError", "the hub cannot be reached"),
        ("OfflineModeIsEnabled", "the hub cannot be reached"),
    ],
)
def test_failures_of_the_hub(monkeypatch, tmp_path, error, message):
    import huggingface_hub
    import requests

    def fail(name, **options):
        kind = getattr(huggingface_hub.errors, error)
        needs_response = error.startswith(("Gated", "Repository", "Revision"))
        raise kind("no", response=requests.Response()) if needs_response else kind("no")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "names").mkdir(parents=True)
    with pytest.raises(UserError, match=message) as raised:
        pipeline_folder.locate("org/name", ["vae"], "r1")
    assert "Did you mean 'org/names'?" in str(raised.value)
