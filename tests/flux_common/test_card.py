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
    made = {}
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
    assert "\n" not in said.summary
    assert "black-forest-labs/FLUX.1-dev" in tree.co_consts


def test_a_lora():
    said = lora({"dataset_name": "me/dogs", "instance_prompt": "a dog"}, {"rank": 16})
    assert said.dataset_name == "me/dogs"
    assert "LoRA of rank 16 on the transformer" in said.summary
    assert {"lora", "template:sd-lora"} <= set(said.tags)
    assert "pipeline.load_lora_weights('me/dog')" in said.usage


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
