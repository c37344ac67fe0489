import pytest

from flux_lora_plugin.config import LoraDataSection, LoraModelSection


def problems(section):
    return list(section.problems())


def data(**options):
    given = {"instance_data_dir": "x", "instance_prompt": "a photo of sks dog", **options}
    return problems(LoraDataSection(**given))


def test_plain_configurations_have_no_problems():
    assert data() == []
    assert data(instance_data_dir=None, dataset_name="x", caption_column="text") == []
    assert data(caption_column="text") == []  # the prompt stands in for captions that lack
    prior = {"class_data_dir": "y", "class_prompt": "a dog"}
    assert data(with_prior_preservation=True, **prior) == []


def test_layers_as_text_or_list():
    def section(layers):
        return LoraModelSection(pretrained_model_name_or_path="x", lora_layers=layers)

    assert section("to_q, to_k").targets == ["to_q", "to_k"]
    assert section(["to_q", "to_k"]).targets == ["to_q", "to_k"]
    (problem,) = problems(section(" , "))
    assert "name at least one layer" in problem


@pytest.mark.parametrize(
    ("options", "substance"),
    [
        ({"instance_data_dir": None}, "data.instance_data_dir, data.dataset_name and data.jsonl"),
        ({"instance_data_dir": None}, "none is set"),
        ({"dataset_name": "y"}, "instance_data_dir and dataset_name are set"),
        ({"instance_prompt": None}, "neither is set"),
        ({"instance_prompt": " "}, "data.instance_prompt is empty"),
        ({"with_prior_preservation": True, "class_data_dir": "y"}, "needs data.class_prompt"),
        ({"with_prior_preservation": True, "class_prompt": "y"}, "needs data.class_data_dir"),
        (
            {
                "with_prior_preservation": True,
                "class_data_dir": "y",
                "class_prompt": "y",
                "buckets": [[64, 96], [96, 64]],
            },
            "the class images are made at one size",
        ),
        ({"class_prompt": "y"}, "only with data.with_prior_preservation=true"),
        ({"num_class_images": 7}, "only with data.with_prior_preservation=true"),
        ({"num_inference_steps": 4}, "only with data.with_prior_preservation=true"),
    ],
)
def test_options_that_do_not_fit(options, substance):
    (problem,) = data(**options)
    assert substance in problem
