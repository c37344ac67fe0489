"""The first stage of a run, with an encoder that is one layer."""

import gc
import weakref
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from hooks.types import Config, Models
from launcher import child
from launcher.console import Console
from launcher.encoding import EncodingStage
from launcher.sections import PrecisionSection, RuntimeSection
from launcher.training.cache.options import CacheOptions
from launcher.training.errors import UserError

KEYS = np.arange(3 * 32, dtype=np.uint8).reshape(3, 32)


@dataclass(frozen=True)
class Data(CacheOptions):
    pass


class Recipe:
    """Encodes the numbers 0, 1 and 2 with a layer that multiplies by two."""

    def __init__(self, encodes=3, batch_size=8):
        self.calls = []
        self.reads = 0
        self.encodes = encodes
        self.batch_size = batch_size
        self.models = None

    def build_models(self, config, stage):
        from mindspore import nn
        from mindspore.nn.utils import no_init_parameters

        from launcher.training import weights

        self.calls.append("build_models")
        with no_init_parameters():
            layer = nn.Dense(1, 1)
        weights.defer(layer, weights.Origin((), {}), lambda: self.read(layer))
        return Models(doubler=layer)

    def read(self, layer):
        import mindspore as ms

        self.reads += 1
        layer.weight.set_data(ms.Tensor([[2.0]]))
        layer.bias.set_data(ms.Tensor([0.0]))

    def apply_precision(self, config, models):
        return models

    def plan_encodings(self, config, models, networks, dataset):
        assert networks == "networks" and dataset == "samples"
        return SimpleNamespace(keys=lambda: KEYS)

    def precompute(self, config, models, dataset, encodings, cache):
        import mindspore as ms

        self.calls.append("precompute")
        layer = models["doubler"]
        self.models = weakref.ref(layer)

        def encode(positions):
            numbers = ms.Tensor(np.array(positions, np.float32)[:, None])
            return {"doubled": layer(numbers).asnumpy()}

        cache.fill(
            "number",
            KEYS[: self.encodes],
            encode,
            lambda i: f"the number {i}",
            batch_size=self.batch_size,
            about={"factor": "2"},
        )
        return cache


@pytest.fixture
def stage(graph_mode, tmp_path):
    """stage(recipe, release_text_encoders) -> EncodingStage"""

    def make(recipe, way="delete", arguments=None, cache_dir=None, **more):
        plugins = SimpleNamespace(hook=recipe, leaves_to_launcher=lambda hook: False)
        precision = PrecisionSection(release_text_encoders=way)
        config = Config(
            {
                "data": Data(cache_dir=str(cache_dir or tmp_path)),
                "precision": precision,
                "runtime": RuntimeSection(),
            }
        )
        return EncodingStage(
            plugins, config, "networks", "samples", Console(), arguments=arguments, **more
        )

    return make


def doubled(encoded):
    return [float(encoded.cache.get(bytes(key))["doubled"][0]) for key in KEYS]


def test_what_is_missing_is_encoded_and_kept_on_disk(stage, tmp_path, capsys):
    recipe = Recipe()
    assert doubled(stage(recipe).run()) == [0, 2, 4]
    assert recipe.calls == ["build_models", "precompute"] and recipe.reads == 1
    assert "encoded 3 inputs in" in capsys.readouterr().err
    assert list((tmp_path / "encodings" / "number").iterdir())


def test_what_is_there_is_not_encoded_and_no_weight_is_read(stage, capsys, tmp_path, monkeypatch):
    stage(Recipe()).run()
    monkeypatch.setattr(child, "run", None)
    recipe = Recipe()
    encoded = stage(recipe, way="process", arguments=["--recipe"]).run()
    assert doubled(encoded) == [0, 2, 4]
    assert recipe.calls == ["build_models"] and recipe.reads == 0
    assert f"all 3 encodings are in {tmp_path / 'encodings'}" in capsys.readouterr().err
    (note,) = encoded.report.notes
    assert note.startswith("doubler: all that they encode was there already")


def test_in_a_process_of_its_own_it_is_encoded_there(stage, monkeypatch):
    def run(verb, arguments, task, way_out):
        assert (verb, arguments) == ("precompute", ["--recipe", "x"])
        stage(Recipe()).run()
        return {"observed": []}

    monkeypatch.setattr(child, "run", run)
    recipe = Recipe()
    assert doubled(stage(recipe, way="process", arguments=["--recipe", "x"]).run()) == [0, 2, 4]
    assert recipe.calls == ["build_models"] and recipe.reads == 0


def test_what_is_to_be_kept_in_memory_is_encoded_here(stage, tmp_path):
    recipe = Recipe()
    encoded = stage(recipe, way="process", arguments=["--recipe"], in_memory=True).run()
    assert doubled(encoded) == [0, 2, 4]
    assert not (tmp_path / "encodings").exists()


@pytest.mark.parametrize("way", ["delete", "cast"])
def test_released_encoders_are_gone(stage, way):
    recipe = Recipe()
    encoded = stage(recipe, way).run()
    gc.collect()
    assert encoded.kept is None
    assert recipe.models() is None


def test_encoders_that_are_cast_are_in_half_precision_before_they_go(stage, monkeypatch):
    import mindspore as ms

    from launcher.training import precision

    seen = []
    real = precision.shrink

    def shrink(cell):
        real(cell)
        seen.extend(p.dtype for p in cell.get_parameters())

    monkeypatch.setattr(precision, "shrink", shrink)
    stage(Recipe(), "delete").run()
    assert seen == []
    (folder,) = {p.parent for p in stage(Recipe())._options.encodings_dir.rglob("*.safetensors")}
    for path in folder.iterdir():
        path.unlink()
    stage(Recipe(), "cast").run()
    assert seen == [ms.float16, ms.float16]


def test_encoders_that_are_kept_stay(stage):
    recipe = Recipe()
    encoded = stage(recipe, "keep").run()
    gc.collect()
    assert recipe.models() is encoded.kept["doubler"]


def test_a_recipe_that_does_not_encode_what_it_names_is_told(stage):
    with pytest.raises(UserError, match=r"1 of 3 encodings are missing in .*plan_encodings names"):
        stage(Recipe(encodes=2)).run()


def test_a_damaged_encoding_is_made_anew(stage, tmp_path):
    from launcher.training.cache import DamagedEntryError

    first = stage(Recipe())
    encoded = first.run()
    (path,) = (tmp_path / "encodings").rglob("*.safetensors")
    before = path.read_bytes()
    content = bytearray(before)
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedEntryError) as caught:
        [encoded.cache.get(bytes(key)) for key in KEYS]
    first.mend(encoded, caught.value.key)
    assert doubled(encoded) == [0, 2, 4]


def test_nothing_is_kept_of_encoders_that_do_not_compute_as_asked(stage, tmp_path, monkeypatch):
    from launcher.training.precision.report import Report

    monkeypatch.setattr(Report, "problems", lambda self, loss_scaling: ["it computes in float8"])
    with pytest.raises(UserError, match="float8"):
        stage(Recipe()).run()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_encoders_that_are_kept_mend_it(stage, tmp_path):
    recipe = Recipe()
    first = stage(recipe, "keep")
    encoded = first.run()
    first.mend(encoded, bytes(KEYS[1]))
    assert doubled(encoded) == [0, 2, 4]
    assert recipe.reads == 1


def test_a_cache_that_cannot_be_written_to_is_found_before_an_encoder_is_read(stage, tmp_path):
    (tmp_path / "file").write_text("")
    recipe = Recipe()
    with pytest.raises(UserError, match=r"file is not a folder|file/encodings cannot be read"):
        stage(recipe, cache_dir=tmp_path / "file").run()
    assert recipe.reads == 0


def test_an_option_that_a_recipe_without_encodings_ignores_is_refused():
    from launcher.pipeline import stage_problems

    def plugins(*answered):
        return SimpleNamespace(recipe="r", leaves_to_launcher=lambda hook: hook not in answered)

    keep = Config({"precision": PrecisionSection(release_text_encoders="keep")})
    plain = Config({"precision": PrecisionSection()})
    assert stage_problems(plugins("plan_encodings", "precompute"), keep) == []
    assert stage_problems(plugins(), plain) == []
    (problem,) = stage_problems(plugins(), keep)
    assert "release_text_encoders is keep, but the recipe r encodes nothing" in problem
    (problem,) = stage_problems(plugins("precompute"), plain)
    assert "precompute is implemented and plan_encodings is not" in problem


def test_how_fast_it_was_is_remembered_without_the_batch_that_compiles(stage):
    stage(Recipe(batch_size=1)).run()
    rate = stage(Recipe())._options.rates()["number"]
    assert rate.pop("seconds") > 0
    assert rate == {"entries": 2, "device": "CPU", "about": {"factor": "2"}}


def test_where_one_batch_is_all_nothing_is_known_of_the_speed(stage):
    stage(Recipe(batch_size=8)).run()
    assert stage(Recipe())._options.rates() == {}


def test_a_recipe_without_encodings_has_none(graph_mode):
    from launcher import defaults

    hook = SimpleNamespace(
        plan_encodings=lambda **_: defaults.plan_encodings(), build_models=None, precompute=None
    )
    plugins = SimpleNamespace(hook=hook, leaves_to_launcher=lambda name: True)
    config = Config({"precision": PrecisionSection()})
    encoded = EncodingStage(plugins, config, Models(), [], Console(), arguments=["x"]).run()
    assert encoded.encodings.keys().shape == (0, 32)
