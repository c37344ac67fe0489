from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pytest

from hooks.types import Config
from launcher.config import (
    PLACEHOLDER,
    Source,
    list_options,
    options_table,
    read_overrides,
    read_yaml,
    resolve,
    to_yaml,
)
from launcher.training.errors import UserError
from launcher.training.options import option


@dataclass(frozen=True)
class Train:
    output_dir: str = option("out", help="folder")
    learning_rate: float = option(1e-4, ge=0, help="rate")
    batch: int = option(4, ge=1, help="samples")
    clip: float | None = option(1.0, gt=0, help="norm")
    resume: bool = option(False, help="go on")
    precision: Literal["no", "bf16"] = option("bf16", help="dtype")


@dataclass(frozen=True)
class Data:
    name: str = option(help="data set")
    revision: str | None = option(None, help="branch")
    resolution: int | list[int] = option(512, help="side, or height and width")
    columns: list[str] = option(default_factory=list, help="names")

    def problems(self) -> Iterable[str]:
        if self.revision == self.name:
            yield f"data.revision and data.name are both {self.name}; one of them is wrong"


SECTIONS = {"train": Train, "data": Data}


@dataclass(frozen=True)
class Toy:
    """What the sections above have no example of."""

    names: str | list[str] = option("", help="one or several")
    shares: tuple[float, ...] = option((1.0,), gt=0, help="shares")
    device: Literal["auto", "CPU"] = option("auto", help="device")
    devices: list[Literal["auto", "CPU"]] | None = option(None, help="devices")
    level: Literal[0, 1] = option(0, help="level")
    schedule: Literal["none", "cosine"] = option("cosine", help="schedule")


def yaml(tmp_path, text, name="run.yaml") -> Source:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


def config_of(tmp_path, text="", *arguments):
    sources = [yaml(tmp_path, text), read_overrides(["data.name=x", *arguments])]
    return resolve(SECTIONS, sources).config


def mistakes_in(tmp_path, text, *arguments) -> str:
    return message_of(config_of, tmp_path, text, *arguments)


def message_of(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    return str(caught.value)


# --- precedence and origins ------------------------------------------------------------------


def test_later_sources_win_and_every_value_knows_where_it_comes_from(tmp_path):
    recipe = yaml(
        tmp_path, "train:\n  learning_rate: 1\n  batch: 2\ndata: {name: a}", "recipe.yaml"
    )
    run = yaml(tmp_path, "train:\n  learning_rate: 2\n", "run.yaml")
    resolved = resolve(SECTIONS, [recipe, run, read_overrides(["clip=3"])])
    train = resolved.config.train
    assert (train.learning_rate, train.batch, train.clip, train.resume) == (2.0, 2, 3.0, False)
    assert resolved.origins["train.learning_rate"].endswith("run.yaml:2")
    assert resolved.origins["train.batch"].endswith("recipe.yaml:3")
    assert resolved.origins["train.clip"] == "command line"
    assert resolved.origins["train.resume"] == "default"


def test_recipe_and_plugins_stand_beside_the_sections(tmp_path):
    source = yaml(tmp_path, "recipe: toy\nplugins: [a.py, b]\ntrain:\n")
    assert (source.recipe, list(source.plugins)) == ("toy", ["a.py", "b"])
    assert "sections are" not in str(resolve({"train": Train}, [source]))


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("learning_rate: 1e-5", "learning_rate", 1e-5),  # a string to PyYAML
        ("learning_rate: 3", "learning_rate", 3.0),
        ("batch: 1e3", "batch", 1000),
        ("precision: no", "precision", "no"),  # False to PyYAML
        ('precision: "no"', "precision", "no"),
        ("resume: yes", "resume", True),
        ("clip: null", "clip", None),
        ("clip:", "clip", None),
        ("output_dir: 2024", "output_dir", "2024"),
        ("output_dir: on", "output_dir", "on"),
        ("output_dir: 'null'", "output_dir", "null"),
        ("output_dir: 2024-99-99", "output_dir", "2024-99-99"),  # no date, and not meant as one
        ("batch: 010", "batch", 10),  # 8 to PyYAML
    ],
)
def test_the_type_of_the_option_decides_what_yaml_means(tmp_path, written, name, value):
    found = getattr(config_of(tmp_path, f"train:\n  {written}\n").train, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("train.learning_rate=1e-5", ("train", "learning_rate", 1e-5)),
        ("batch=8", ("train", "batch", 8)),
        ("output_dir=a=b:c #d, e", ("train", "output_dir", "a=b:c #d, e")),
        ("output_dir=", ("train", "output_dir", "")),
        ("clip=null", ("train", "clip", None)),
        ("clip=None", ("train", "clip", None)),
        ("revision=none", ("data", "revision", None)),
        ("output_dir=[a, b]", ("train", "output_dir", "[a, b]")),
        ("output_dir={a: 1}", ("train", "output_dir", "{a: 1}")),
        ("output_dir='a'", ("train", "output_dir", "'a'")),
        ("output_dir=- a", ("train", "output_dir", "- a")),
        ("output_dir=*a", ("train", "output_dir", "*a")),
        ("resume=true", ("train", "resume", True)),
        ("precision=no", ("train", "precision", "no")),
        ("resolution=512", ("data", "resolution", 512)),
        ("resolution=[512, 768]", ("data", "resolution", [512, 768])),
        ("resolution=512,768", ("data", "resolution", [512, 768])),
        ("columns=[a, b]", ("data", "columns", ["a", "b"])),
    ],
)
def test_values_on_the_command_line(tmp_path, argument, value):
    section, name, expected = value
    found = config_of(tmp_path, "", argument)[section]
    assert getattr(found, name) == expected


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("names=a,b", "a,b"),  # a comma belongs to text
        ("names=[a, b=c:d]", ["a", "b=c:d"]),
        ("shares=1e-5,2", (1e-5, 2.0)),
        ("shares=[1e-5, 2]", (1e-5, 2.0)),
        ("level=1", 1),
        ("schedule=none", "none"),  # a choice, where null is none
    ],
)
def test_values_of_unions_tuples_and_choices(argument, expected):
    found = getattr(
        resolve({"toy": Toy}, [read_overrides([argument])]).config.toy, argument.partition("=")[0]
    )
    assert found == expected
    assert type(found) is type(expected)


def test_choices_are_suggested_whatever_their_capitals():
    message = message_of(resolve, {"toy": Toy}, [read_overrides(["device=cpu"])])
    assert message == (
        "command line: toy.device is 'cpu', but must be one of auto, CPU; did you mean CPU?"
    )


@pytest.mark.parametrize("argument", ["devices=[auto, cpu]", "devices=auto,cpu", "devices=cpu"])
def test_of_a_list_the_first_wrong_element_is_what_a_choice_is_suggested_for(argument):
    message = message_of(resolve, {"toy": Toy}, [read_overrides([argument])])
    assert message.endswith("did you mean CPU?")


@pytest.mark.parametrize(
    ("argument", "substance"),
    [
        ("batch=3.7", "whole number"),
        ("batch=true", "whole number"),
        ("batch=0", "at least 1"),
        ("learning_rate=abc", "a number"),
        ("learning_rate=nan", "a number"),
        ("learning_rate=-1", "at least 0"),
        ("clip=0", "greater than 0"),
        ("resume=3", "true or false"),
        ("precision=bf61", "did you mean bf16?"),
        ("resolution=[512, x]", "a whole number or a list"),
        ("columns=[[a]]", "a list"),
    ],
)
def test_wrong_values_name_option_value_and_what_is_allowed(tmp_path, argument, substance):
    name = argument.partition("=")[0]
    message = message_of(config_of, tmp_path, "", argument)
    assert f".{name} is" in message and substance in message and "command line" in message


# --- mistakes --------------------------------------------------------------------------------


def test_all_mistakes_are_reported_together(tmp_path):
    source = yaml(
        tmp_path,
        "train:\n  bacth: 3\n  learning_rate: fast\n  resolution: 64\nmodle: {a: 1}\n",
    )
    message = message_of(resolve, SECTIONS, [source, read_overrides(["batch=x"])])
    assert message.startswith("6 problems:")
    assert "run.yaml:2: the section train has no option bacth; did you mean train.batch?" in message
    assert "run.yaml:3: train.learning_rate is 'fast', but must be a number." in message
    assert "run.yaml:4: the section train has no option resolution; did you mean data.r" in message
    assert "run.yaml:5: there is no section modle; sections are train, data." in message
    assert "command line: train.batch is 'x'" in message
    assert "data.name is missing (data set)" in message


def test_mistakes_in_form_and_in_content_are_reported_together(tmp_path):
    message = mistakes_in(tmp_path, "train:\n  batch: 1\n  batch: 2\ntrian:\n", "clip", "clip=0")
    assert message.startswith("4 problems:")
    assert "run.yaml:3: `train.batch` is set twice" in message
    assert "run.yaml:4: there is no section trian; did you mean train?" in message
    assert "`clip` is not of the form section.option=value" in message
    assert "train.clip is '0'" in message


def test_a_missing_option_is_reported_beside_other_mistakes_in_its_section(tmp_path):
    message = message_of(resolve, SECTIONS, [yaml(tmp_path, "data: {resolution: big}")])
    assert message.startswith("2 problems:")
    assert "data.name is missing" in message


@pytest.mark.parametrize("text", ["data: {nmae: x}", "date: {name: x}", "train: {name: x}"])
def test_an_option_that_is_misspelt_or_misplaced_is_not_missing_too(tmp_path, text):
    message = message_of(resolve, SECTIONS, [yaml(tmp_path, text)])
    assert "did you mean data" in message
    assert "missing" not in message


def test_a_mistake_in_the_recipes_own_file_names_that_file(tmp_path):
    recipe = yaml(tmp_path, "train:\n  batch: many\n", "recipe.yaml")
    message = message_of(resolve, SECTIONS, [recipe, read_overrides(["batch=3", "name=x"])])
    assert "recipe.yaml:2: train.batch is 'many'" in message


@pytest.mark.parametrize(
    ("text", "substance"),
    [
        ("batch: 3\n", "`batch` stands outside of its section; write `batch: ...` indented below"),
        ("train.batch: 3\n", "write `batch: ...` indented below `train:`."),
        ("modle:\n", "there is no section modle"),
        ("bacth: 3\n", "there is no section bacth"),
        ("train:\n  batch:3\n", "a space belongs after a colon"),
        ("train: {batch: }\n", "train.batch is empty, but must be a whole number."),
    ],
)
def test_what_stands_in_the_wrong_place(tmp_path, text, substance):
    message = mistakes_in(tmp_path, text)
    assert substance in message
    assert "run.yaml:" in message and "\n" not in message


def test_an_unknown_section_is_reported_once(tmp_path):
    message = mistakes_in(tmp_path, "trian:\n  batch: 3\n  clip: 2\n")
    assert message.endswith("run.yaml:1: there is no section trian; did you mean train?")


def test_a_section_is_no_option(tmp_path):
    assert "train is a section, with output_dir, learning" in mistakes_in(tmp_path, "", "train=3")
    sections = {"precision": Toy, "data": Data}  # near to data.revision
    message = message_of(resolve, sections, [read_overrides(["name=x", "precision=bf16"])])
    assert message.endswith(
        "precision is a section, with names, shares, device, devices, level, schedule."
    )


def test_a_placeholder_must_be_filled_by_a_later_source(tmp_path):
    text = f"train:\n  batch: {PLACEHOLDER}\n"
    assert f"train.batch is still {PLACEHOLDER}" in mistakes_in(tmp_path, text)
    assert config_of(tmp_path, text, "batch=3").train.batch == 3


def test_one_mistake_is_one_paragraph(tmp_path):
    message = message_of(config_of, tmp_path, "", "batch=0")
    assert message == "command line: train.batch is '0', but must be at least 1."


def test_unknown_options_on_the_command_line_are_suggested(tmp_path):
    assert "did you mean train.batch?" in message_of(config_of, tmp_path, "", "bach=3")
    assert "did you mean train?" in message_of(config_of, tmp_path, "", "trian.batch=3")
    assert "did you mean train.batch?" in message_of(config_of, tmp_path, "", "opt.batch=3")


def test_a_leaf_of_two_sections_must_say_which():
    sections = {"a": Train, "b": Train}
    message = message_of(resolve, sections, [read_overrides(["batch=3"])])
    assert "write a.batch or b.batch" in message


def test_sections_check_across_their_options(tmp_path):
    message = message_of(config_of, tmp_path, "", "revision=x")
    assert message == "data.revision and data.name are both x; one of them is wrong."


def test_a_missing_section_is_one_whose_required_options_are_missing(tmp_path):
    message = message_of(resolve, SECTIONS, [yaml(tmp_path, "")])
    assert "data.name is missing" in message
    assert "data.name=..." in message


@pytest.mark.parametrize("argument", ["batch", "=3", ".batch=3"])
def test_arguments_that_are_no_settings(tmp_path, argument):
    assert "section.option=value" in mistakes_in(tmp_path, "", argument)


def test_an_argument_given_twice(tmp_path):
    assert "given twice" in mistakes_in(tmp_path, "", "batch=3", "batch=4")


@pytest.mark.parametrize(
    ("text", "substance"),
    [
        ("train:\n  batch: 3\n  batch: 4\n", "run.yaml:3: `train.batch` is set twice, first in li"),
        ("train: {}\ntrain: {}\n", "run.yaml:2: `train` is set twice"),
        ("train:\n\tbatch: 3\n", "Indent with spaces"),
        ("train: [1\n", "run.yaml:2:1 is not valid YAML, at the end of the file"),
        ("train:\n  output_dir: a: b\n", "run.yaml:2:16 is not valid YAML, at `output_dir: a: b`"),
        ("train:\n  output_dir: @a\n", "needs quotes"),
        ("train:\n  output_dir: *a\n", "needs quotes"),
        ("train:\n  output_dir: 'a\n", "A quote is not closed"),
        ("train:\n  output_dir: a\x07\n", "run.yaml:2:16 is not valid YAML: the character with"),
        ("train:\n  output_dir: !path a\n", "run.yaml:2:15 is not valid YAML"),
        ("train:\n  output_dir: &a [*a]\n", "refers to what it is part of"),
        ("train:\n  [a]: 3\n", "run.yaml:2: a name is expected before the colon"),
        ("train: 3\n", "`train` is a section"),
        ("- a\n- b\n", "holds no sections"),
        ("just text\n", "holds no sections"),
        ("plugins: 3\n", "`plugins` takes a list"),
        ("recipe: [a]\n", "`recipe` takes one name"),
        ("a: 1\n---\nb: 2\n", "is not valid YAML"),
        ("a: *b\n", "is not valid YAML"),
    ],
)
def test_mistakes_in_the_form_of_a_file(tmp_path, text, substance):
    assert substance in mistakes_in(tmp_path, text)


def test_empty_files_and_sections_are_fine(tmp_path):
    assert config_of(tmp_path, "").train.batch == 4
    assert config_of(tmp_path, "# nothing\ntrain:\n  # batch: 3\n").train.batch == 4


def test_yaml_anchors_and_merges_work(tmp_path):
    text = "train:\n  <<: {batch: 2, clip: &c 3}\n  batch: 5\n  learning_rate: *c\n"
    train = config_of(tmp_path, text).train
    assert (train.batch, train.clip, train.learning_rate) == (5, 3.0, 3.0)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "my_run.yaml").write_text("")
    assert "did you mean" in message_of(read_yaml, tmp_path / "my_rum.yaml")
    assert "is a folder" in message_of(read_yaml, tmp_path)
    assert "no folder" in message_of(read_yaml, tmp_path / "nowhere" / "run.yaml")
    (tmp_path / "latin.yaml").write_bytes("train: {output_dir: é}".encode("latin-1"))
    assert "not UTF-8" in message_of(read_yaml, tmp_path / "latin.yaml")


# --- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["no", "1e-5", "on", "null", "a b/c: d # e", "é€", "", "'", "~"])
def test_the_written_configuration_reads_back_equal(tmp_path, text):
    config = config_of(
        tmp_path, "", "clip=null", "learning_rate=1e-05", "resolution=512,768", f"output_dir={text}"
    )
    source = yaml(tmp_path, to_yaml({"recipe": "toy", "plugins": ["a.py"]}, config), "again.yaml")
    assert dict(resolve(SECTIONS, [source]).config) == dict(config)
    assert (source.recipe, source.plugins) == ("toy", ["a.py"])


@pytest.mark.parametrize("names", ["a,b", "[a, b]", ["a", "no", "1e-5"], []])
def test_unions_and_tuples_read_back_equal(tmp_path, names):
    toy = Toy(names=names, shares=(1e-05, 2.0), level=1)
    source = yaml(tmp_path, to_yaml({}, Config({"toy": toy})))
    assert resolve({"toy": Toy}, [source]).config.toy == toy


def test_a_recipes_file_changes_the_defaults_that_are_listed(tmp_path):
    source = yaml(tmp_path, "train: {batch: 2}")
    defaults = {o.name: o.default for o in list_options(SECTIONS, [source])}
    assert (defaults["batch"], defaults["clip"]) == (2, 1.0)


def test_options_table_has_a_row_an_option():
    table = options_table(SECTIONS).splitlines()
    assert len(table) == 2 + 6 + 4
    assert "| `train.batch` | a whole number, ≥ 1 | `4` | samples | fixed |" in table
    assert "| `data.name` | text | (required) | data set | fixed |" in table


def test_options_without_help_are_allowed_in_other_peoples_sections():
    @dataclass
    class Plain:
        size: int = 3

    assert resolve({"plain": Plain}, [read_overrides(["size=4"])]).config.plain.size == 4
    assert "`plain.size`" in options_table({"plain": Plain})
