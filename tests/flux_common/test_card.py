"""What the recipes say in their model cards."""

import dataclasses
from types import SimpleNamespace

import pytest

import flux_controlnet_plugin.card as controlnet_card
import flux_lora_plugin.card as lora_card
from flux_common.card import base_license
from flux_controlnet_plugin.config import SECTIONS as CONTROLNET
from flux_lora_plugin.config import SECTIONS as LORA
from hooks.types import ModelDescription
from launcher.sections import TrainSection
from launcher.training.errors import UserError

DEV = {
    "license": "other",
    "license_name": "flux-1-dev-non-commercial-license",
    "license_link": "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
}


def config(sections, **changes):
    filled = {
        "model": {"pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev"},
        "data": {},
    }
    made = {"train": TrainSection("out")}
    for name, section in sections.items():
        made[name] = section(**filled.get(name, {}))
        made[name] = dataclasses.replace(made[name], **changes.get(name, {}))
    return SimpleNamespace(**made)


def lora(data, model=None):
    return ModelDescription(
        **lora_card.describe(config(LORA, data=data, model=model or {}), "me/dog")
    )


def test_licences_that_are_known():
    assert base_license("black-forest-labs/FLUX.1-dev") == DEV
    assert base_license("/data/models--black-forest-labs--FLUX.1-dev/snapshots/1") == DEV
    assert base_license("black-forest-labs/FLUX.1-schnell") == {"license": "apache-2.0"}
    assert base_license("somebody/flux") == {"license": "other"}


def test_the_licence_that_a_folder_states(tmp_path):
    folder = tmp_path / "FLUX.1-dev"
    folder.mkdir()
    assert base_license(str(folder)) == DEV  # by its name
    card = folder / "README.md"
    card.write_text("---\nlicense: mit\nbase_model: x\n---\n# A model\n")
    assert base_license(str(folder)) == {"license": "mit"}
    card.write_text("# A model\n\n---\nlicense: mit\n---\n")
    assert base_license(str(folder)) == DEV
    card.write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(UserError, match="metadata that are no YAML"):
        base_license(str(folder))


def test_a_link_to_a_file_beside_the_base_models_card_is_dead_elsewhere(tmp_path):
    """FLUX.1-dev's own card has such a one."""
    card = tmp_path / "README.md"
    head = "---\nlicense: other\nlicense_name: {}\nlicense_link: {}\n---\n"
    card.write_text(head.format(DEV["license_name"], "LICENSE.md"))
    assert base_license(str(tmp_path)) == DEV
    card.write_text(head.format("acme-licence", "LICENSE.md"))
    assert base_license(str(tmp_path)) == {"license": "other", "license_name": "acme-licence"}
    card.write_text(head.format("acme-licence", "https://acme/x"))
    assert base_license(str(tmp_path))["license_link"] == "https://acme/x"


def test_what_is_said_of_the_licence():
    said = lora({"instance_data_dir": "/dog", "instance_prompt": "dog"})
    assert said.summary.endswith(
        "The licence of the base model covers these weights too: "
        f"{DEV['license_name']}, see <{DEV['license_link']}>."
    )


def test_the_alpha_of_a_lora():
    data = {"instance_data_dir": "/dog", "instance_prompt": "dog"}
    for model, is_told in (
        ({}, False),
        ({"rank": 16, "lora_alpha": 16}, False),
        ({"rank": 16, "lora_alpha": 8}, True),
        ({"lora_weights": "/runs/first"}, True),
    ):
        assert ("diffusers 0.35" in lora(data, model).summary) == is_told


def test_a_base_model_that_nothing_is_known_of(tiny_flux):
    model = {"pretrained_model_name_or_path": str(tiny_flux)}
    said = lora({"instance_data_dir": "/photos/of/dog", "instance_prompt": "dog"}, model)
    assert said.base_model is None
    assert said.metadata["license"] == "other"
    assert "The licence of the base model covers these weights too" in said.summary
    assert str(tiny_flux.parent) not in repr(said)
    assert said.dataset == "`dog`"


def test_a_prompt_means_itself_everywhere():
    prompt = 'BASE {0} "sks" `dog`\n```\n---\n# {model_id}'
    said = lora({"instance_data_dir": "dog", "instance_prompt": prompt})
    assert said.metadata["instance_prompt"] == prompt
    tree = compile(said.usage, "card", "exec")
    assert prompt in tree.co_consts
    assert said.summary.count("\n") == 2  # before the sentence on the licence
    assert "black-forest-labs/FLUX.1-dev" in tree.co_consts


def test_a_lora():
    said = lora({"dataset_name": "me/dogs", "instance_prompt": "a dog"}, {"rank": 16})
    assert said.dataset_name == "me/dogs"
    assert "LoRA of rank 16 on the transformer" in said.summary
    assert {"lora", "template:sd-lora"} <= set(said.tags)
    assert (
        "pipeline.load_lora_weights('me/dog', weight_name='pytorch_lora_weights.safetensors')"
        in said.usage
    )


def test_a_controlnet_that_goes_on_from_another():
    made = config(
        CONTROLNET,
        data={"jsonl_for_train": "/data/x/all.jsonl", "conditioning": "blur"},
        model={"controlnet_model_name_or_path": "/data/x/runs/first/controlnet"},
    )
    said = ModelDescription(**controlnet_card.describe(made, "me/blur"))
    assert "The control image is the picture, blurred." in said.summary
    assert "went on from the ControlNet `controlnet`" in said.summary
    assert said.dataset == "`all.jsonl`"
    assert "/data/x" not in repr(said)
    compile(said.usage, "card", "exec")
