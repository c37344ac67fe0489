"""Replacing names: completely, visibly, and with a clear error when one is missing."""

import subprocess
import sys
import types

import pytest

from launcher.cpu import UnsupportedVersionError
from launcher.training.patching import Substitute, apply


def substitute_function():
    return "substitute"


def original_function():
    return "original"


@pytest.fixture
def package(monkeypatch):
    """``mindone.made_up`` with a function and a class, and a module that imported the function."""

    class Layer:
        def construct(self):
            return "original"

        @staticmethod
        def table():
            return "original"

    class Special(Layer):
        pass

    made_up = types.ModuleType("mindone.made_up")
    made_up.function, made_up.Layer, made_up.Special = original_function, Layer, Special
    user = types.ModuleType("mindone.made_up_user")
    user.by_name = original_function
    monkeypatch.setitem(sys.modules, "mindone.made_up", made_up)
    monkeypatch.setitem(sys.modules, "mindone.made_up_user", user)
    return made_up


def entry(attribute, replacement=substitute_function):
    return Substitute("mindone.made_up", attribute, replacement, "no kernel: MadeUp")


def test_replaces_a_function_also_where_it_was_imported_by_name(package):
    apply([entry("function")])
    assert package.function() == "substitute"
    assert sys.modules["mindone.made_up_user"].by_name() == "substitute"


def test_replaces_a_method_for_the_class_and_its_subclasses(package):
    apply([entry("Layer.construct", lambda self: "substitute")])
    assert package.Special().construct() == "substitute"


def test_replaces_a_static_method(package):
    apply([entry("Layer.table", staticmethod(substitute_function))])
    assert package.Layer().table() == "substitute"


def test_a_second_call_changes_nothing(package):
    substitutes = [entry("function"), entry("Layer.table", staticmethod(substitute_function))]
    apply(substitutes)
    before = dict(vars(package.Layer)), package.function
    apply(substitutes)
    assert (dict(vars(package.Layer)), package.function) == before


@pytest.mark.parametrize("attribute", ["gone", "Gone.construct", "Layer.gone", "Special.construct"])
def test_a_missing_name_is_an_error_and_nothing_is_replaced(attribute, package):
    with pytest.raises(UnsupportedVersionError) as error:
        apply([entry("function"), entry(attribute)])
    message = str(error.value)
    assert f"mindone.made_up.{attribute}" in message
    assert "mindone 0.5" in message and "no kernel: MadeUp" in message
    assert "mindspore 2.7.0, 2.10.0" in message
    assert package.function is original_function


def test_a_missing_module_is_the_same_error(package):
    with pytest.raises(UnsupportedVersionError, match=r"mindone\.nowhere"):
        apply([Substitute("mindone.nowhere", "function", substitute_function, "slow")])


def test_every_entry_names_a_reason(graph_mode):
    from launcher.cpu.substitutes import SUBSTITUTES

    assert len({s.name for s in SUBSTITUTES}) == len(SUBSTITUTES)
    for substitute in SUBSTITUTES:
        reason, _, detail = substitute.why.partition(": ")
        assert reason in ("no kernel", "inaccurate", "slow", "hangs") and detail, substitute.name


def test_no_reference_to_an_original_is_left(graph_mode):
    from mindone.diffusers.models import attention_dispatch

    from launcher.cpu.attention import scaled_dot_product_attention

    assert attention_dispatch.scaled_dot_product_attention is scaled_dot_product_attention


def test_importing_the_package_imports_neither_mindspore_nor_mindone():
    code = "import sys, launcher.cpu; print({'mindspore', 'mindone'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
