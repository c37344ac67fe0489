"""The configurations that ship with the package, and where a plan finds configurations."""

import pytest

from flux_common import pipeline_folder
from flux_common.pipeline_folder import FLUX1_DEV
from launcher.training import sizes_only
from launcher.training.errors import UserError


@pytest.fixture
def notes():
    with sizes_only.wanted() as notes:
        yield notes


def test_the_parts_are_those_of_a_flux_pipeline_and_fit_each_other(notes):
    assert pipeline_folder.problems(str(FLUX1_DEV)) == []


def test_a_part_that_does_not_fit_would_be_found(notes, tmp_path):
    import json
    import shutil

    folder = tmp_path / "flux"
    shutil.copytree(FLUX1_DEV, folder)
    file = folder / "text_encoder_2" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "d_model": 2048}))
    (problem,) = pipeline_folder.problems(str(folder))
    assert "text_encoder_2 makes 2048" in problem


def test_by_themselves_they_lack_weights_and_tokenizers():
    text = " ".join(pipeline_folder.problems(str(FLUX1_DEV)))
    assert "no subfolders tokenizer, tokenizer_2" in text
    assert "no weights in safetensors format" in text
    with pytest.raises(UserError, match="no weights"):
        pipeline_folder.weight_files(FLUX1_DEV / "vae")


def test_where_no_pipeline_is_given_they_stand_in(notes):
    assert pipeline_folder.locate(sizes_only.NOT_GIVEN, ["vae"]) == FLUX1_DEV
    assert pipeline_folder.locate(sizes_only.NOT_GIVEN, ["transformer"]) == FLUX1_DEV
    assert notes == ["no pipeline is given: the sizes are those of FLUX.1-dev"]
    assert pipeline_folder.weight_files(FLUX1_DEV / "vae") == []


def test_of_a_name_on_the_hub_only_the_cache_is_looked_at(notes, tiny_flux, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(name, **options):
        asked.append(options["local_files_only"])
        return str(tiny_flux)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert pipeline_folder.locate("org/tiny-flux", ["vae", "transformer"]) == tiny_flux
    assert notes == []
    # A snapshot of something else: some parts are not in it.
    assert pipeline_folder.locate("org/tiny-flux", ["vae", "unet"]) == FLUX1_DEV
    assert notes == ["org/tiny-flux is not on this machine: the sizes are those of FLUX.1-dev"]
    assert asked == [True, True]


def test_a_folder_is_taken_as_it_is(notes, tiny_flux):
    assert pipeline_folder.locate(str(tiny_flux), ["vae"]) == tiny_flux
    assert notes == []
    with pytest.raises(UserError, match="there is no folder"):
        from flux_common.loading import load_vae

        load_vae("/no/such/folder")


def test_outside_a_plan_a_placeholder_is_a_path_like_any_other():
    assert not sizes_only.is_wanted()
    (problem,) = pipeline_folder.problems(sizes_only.NOT_GIVEN)
    assert "there is no folder" in problem
