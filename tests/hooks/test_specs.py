"""`hooks/specs.py` is the documentation of the plugin API: it must be complete and consistent."""

import ast
import inspect
import re
import subprocess
import sys
import typing

import pytest

import hooks
from hooks import specs, types

SPECS = {
    name: function
    for name, function in vars(specs).items()
    if inspect.isfunction(function) and hasattr(function, f"{hooks.PROJECT_NAME}_spec")
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def section(spec, title):
    """The lines of `Args:`, `Returns:` or `Raises:` in a docstring; None if it has none."""
    match = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", inspect.getdoc(spec), re.MULTILINE)
    return match and inspect.cleandoc(match.group(1))


def returns(spec):
    return inspect.signature(spec).return_annotation


def test_the_hooks_in_call_order():
    assert list(SPECS) == [
        "config_sections",
        "check_config",
        "build_dataset",
        "inspect_data",
        "prepare_data",
        "build_models",
        "configure_trainable",
        "apply_precision",
        "plan_encodings",
        "precompute",
        "estimate_memory",
        "build_collate_fn",
        "build_loss",
        "build_optimizer",
        "train_step",
        "build_validation",
        "validate",
        "export_weights",
        "describe_model",
        "sample",
        "on_train_start",
        "on_step_end",
        "on_checkpoint",
        "on_train_end",
    ]


def test_every_public_function_is_a_hook():
    functions = {
        name
        for name, value in vars(specs).items()
        if inspect.isfunction(value) and value.__module__ == specs.__name__
    }
    assert functions - {"_spec", "kind_of"} == set(SPECS)


@every_spec
def test_each_has_a_kind_that_pluggy_follows(spec):
    kind = specs.kind_of(spec)
    assert kind in typing.get_args(specs.Kind)
    options = getattr(spec, f"{hooks.PROJECT_NAME}_spec")
    assert options["firstresult"] == (kind == "owned")
    assert not options["historic"]


@every_spec
def test_each_begins_with_a_sentence(spec):
    first = inspect.getdoc(spec).splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 90


@every_spec
def test_each_documents_its_arguments_in_order(spec):
    arguments = list(inspect.signature(spec).parameters)
    documented = re.findall(r"^(\w+): \S", section(spec, "Args") or "", re.MULTILINE)
    assert documented == arguments


@every_spec
def test_each_documents_what_it_returns(spec):
    assert (section(spec, "Returns") is not None) == (returns(spec) != "None")


@every_spec
def test_observers_return_nothing_and_all_others_something(spec):
    assert (returns(spec) == "None") == (specs.kind_of(spec) == "observed")
    assert (spec.__name__.startswith("on_")) == (specs.kind_of(spec) == "observed")


@every_spec
def test_each_is_annotated_and_has_no_defaults(spec):
    signature = inspect.signature(spec)
    assert signature.return_annotation is not signature.empty
    for parameter in signature.parameters.values():
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        assert parameter.annotation is not parameter.empty
        assert parameter.default is parameter.empty


@every_spec
def test_each_is_only_a_specification(spec):
    (definition,) = ast.parse(inspect.getsource(spec)).body
    (docstring,) = definition.body
    assert isinstance(docstring.value, ast.Constant)


def test_one_argument_name_means_one_type():
    annotations = {}
    for spec in SPECS.values():
        for name, parameter in inspect.signature(spec).parameters.items():
            annotations.setdefault(name, set()).add(parameter.annotation)
    assert {name: found for name, found in annotations.items() if len(found) > 1} == {}


def test_hooks_that_hooks_mention_exist():
    words = " ".join(inspect.getdoc(value) for value in [specs, *SPECS.values()])
    mentioned = set(re.findall(r"`((?:build|apply|configure|export|train|on)_\w+)`", words))
    assert mentioned
    assert mentioned <= set(SPECS)


@pytest.mark.parametrize("kind", typing.get_args(specs.Kind))
def test_the_module_explains_each_kind(kind):
    assert f"* **{kind}**: " in specs.__doc__


def test_the_values_are_documented():
    for name, value in vars(types).items():
        if inspect.isclass(value) and value.__module__ == types.__name__:
            assert inspect.getdoc(value), name
            for field in re.findall(r"^    (\w+): ", value.__doc__ or "", re.MULTILINE):
                assert field in value.__annotations__, f"{name}.{field}"


def test_importing_the_contract_imports_no_framework():
    code = (
        "import sys, hooks.specs\n"
        "heavy = {'mindspore', 'mindone', 'transformers', 'datasets', 'numpy', 'launcher'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
