"""Finding, loading, checking and calling plugins."""

import hashlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import plugins as plugins_module
from launcher.entry_points import recipe_entry
from launcher.plugins import PluginImportError, describe_defaults, list_recipes, load, locate
from launcher.training.errors import UserError

pytestmark = pytest.mark.usefixtures("fence", "write")


def message(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def variant(write, body, name="v.py"):
    return write(name, f"from hooks import hookimpl\n\n{inspect.cleandoc(body)}\n")


# --- one owner per hook ---------------------------------------------------------------------


def test_the_recipe_answers_what_no_variant_changes():
    plugins = load("fence", [])
    assert plugins.recipe == "fence"
    assert plugins.recipe_module.__name__ == "fence_plugin.recipe"
    assert plugins.hook.build_loss(config=None, models=None) == "the recipe's loss"


def test_the_defaults_answer_what_the_recipe_leaves_out():
    state = SimpleNamespace(compiled_step=lambda batch, rate: (batch, rate), learning_rate=0.5)
    assert load("fence", []).hook.train_step(state=state, batch="batch") == ("batch", 0.5)


def test_a_variant_owns_what_it_implements(write):
    v = variant(
        write,
        """
        @hookimpl
        def build_loss():
            return "mine"
        """,
    )
    plugins = load("fence", [v])
    assert plugins.hook.build_loss(config=None, models=None) == "mine"
    assert plugins.hook.build_models(config=None, stage="train") == {"fence": "train"}


def test_a_variant_can_call_the_recipe(write):
    v = variant(
        write,
        """
        import fence_plugin.recipe as base
        from fence_plugin.recipe import build_loss as recipe_loss

        @hookimpl
        def build_loss(config, models):
            return [base.build_loss(config, models), recipe_loss(config, models)]
        """,
    )
    hook = load("fence", [v]).hook
    assert hook.build_loss(config=None, models=None) == ["the recipe's loss"] * 2


def test_none_from_an_owned_hook_does_not_fall_through_to_the_recipe(write):
    v = variant(
        write,
        """
        @hookimpl
        def configure_trainable(config, models):
            models["fence"] = "frozen"
        """,
    )
    hook = load("fence", [v]).hook
    text = message(lambda: hook.configure_trainable(config=None, models={}))
    assert text.startswith("v.py:4: `configure_trainable` of `v.py` returned None")
    assert "did you forget `return models`?" in text


@pytest.mark.parametrize("falsy", ["0", "[]", "{}", "False", "''"])
def test_other_empty_answers_are_answers(write, falsy):
    v = variant(write, f"@hookimpl\ndef build_loss():\n    return {falsy}")
    assert load("fence", [v]).hook.build_loss(config=None, models=None) == eval(falsy)


def test_two_variants_cannot_own_one_hook(write):
    body = "@hookimpl\ndef build_loss(): return 1\n\n@hookimpl\ndef train_step(): return 1"
    first, second = variant(write, body, "first.py"), variant(write, body, "second.py")
    text = message(load, "fence", [first, second])
    assert "`build_loss`" in text and "`train_step`" in text
    assert "first.py:4 and second.py:4" in text
    assert "wrapper=True" in text


def test_two_variants_can_share_the_work(write):
    first = variant(write, "@hookimpl\ndef build_loss(): return 1", "first.py")
    second = variant(write, "@hookimpl\ndef train_step(): return 2", "second.py")
    hook = load("fence", [first, second]).hook
    assert hook.build_loss(config=None, models=None) == 1
    assert hook.train_step(state=None, batch=None) == 2


def test_bugs_in_a_hook_keep_their_exception(write):
    v = variant(write, "@hookimpl\ndef build_loss(): return 1 / 0")
    with pytest.raises(ZeroDivisionError):
        load("fence", [v]).hook.build_loss(config=None, models=None)


# --- wrappers -------------------------------------------------------------------------------

NEW_STYLE = """
@hookimpl(wrapper=True)
def {hook}({arguments}):
    result = yield
    seen.append("{hook}")
    return result
"""
OLD_STYLE = """
@hookimpl(hookwrapper=True)
def {hook}({arguments}):
    outcome = yield
    outcome.get_result()
    seen.append("{hook}")
"""


@pytest.mark.parametrize("style", [NEW_STYLE, OLD_STYLE], ids=["wrapper", "hookwrapper"])
def test_wrappers_work_on_every_hook(write, style):
    encoding = {"dataset": [], "encodings": [], "cache": {}}
    calls = {
        "config_sections": {},
        "check_config": {"config": None},
        "build_dataset": {"config": None, "dist": None},
        "inspect_data": {"config": None, "inspection": SimpleNamespace(build_dataset=list)},
        "prepare_data": {"config": None, "dataset": [], "say": print},
        "build_models": {"config": None, "stage": "train"},
        "configure_trainable": {"config": None, "models": {}},
        "apply_precision": {"config": None, "models": {}},
        "plan_encodings": {"config": None, "models": {}, "networks": {}, "dataset": []},
        "precompute": {"config": None, "models": {}, **encoding},
        "estimate_memory": {"config": None, "models": {}, "networks": {}, "samples": None},
        "build_collate_fn": {"config": None, "models": {}, **encoding},
        "build_loss": {"config": None, "models": {}},
        "build_optimizer": {"config": None, "parameters": []},
        "train_step": {"state": None, "batch": None},
        "build_validation": {"config": None, "models": {}, "heldout": [], **encoding},
        "validate": {"config": None, "models": {}, "state": None, "prepared": ()},
        "export_weights": {"config": None, "models": {}, "directory": None, "values": None},
        "describe_model": {"config": None, "model_id": ""},
        "sample": {"config": None, "request": None},
        "on_train_start": {"state": None},
        "on_step_end": {"state": None, "output": None},
        "on_checkpoint": {"state": None, "directory": None},
        "on_train_end": {"state": None},
    }
    assert list(calls) == [info.name for info in describe_defaults()]
    owner = """
    @hookimpl
    def apply_precision(models): return models
    @hookimpl
    def build_optimizer(): return "optimizer"
    @hookimpl
    def train_step(): return "output"
    """
    wrappers = [
        style.format(hook=hook, arguments=", ".join(arguments)) for hook, arguments in calls.items()
    ]
    timing = variant(write, "\n".join(["seen = []", *wrappers]), "timing.py")
    plugins = load("fence", [variant(write, owner, "owner.py"), timing])
    for hook, arguments in calls.items():
        getattr(plugins.hook, hook)(**arguments)
    assert sys.modules[load_name("timing.py")].seen == list(calls)


def load_name(file):
    (name,) = (n for n, m in sys.modules.items() if getattr(m, "__file__", "") == locate(file))
    return name


def test_a_wrapper_stays_around_the_hook_whoever_owns_it(write):
    """Also when the plugin it belongs to answers the hook and is shadowed."""
    v = variant(
        write,
        """
        @hookimpl
        def build_loss():
            return "a"

        @hookimpl(wrapper=True, specname="build_loss")
        def shout():
            return (yield).upper()
        """,
    )
    assert load("fence", [v]).hook.build_loss(config=None, models=None) == "A"

    recipe = Path(recipe_entry("fence").dist.locate_file("fence_plugin/recipe.py"))
    shout = "\n\n@hookimpl(wrapper=True, specname='build_loss')\ndef shout():\n"
    recipe.write_text(recipe.read_text() + shout + "    return (yield).upper()\n")
    sys.modules.pop("fence_plugin.recipe")
    assert load("fence", []).hook.build_loss(config=None, models=None) == "THE RECIPE'S LOSS"
    v = variant(write, "@hookimpl\ndef build_loss(): return 'b'", "b.py")
    assert load("fence", [v]).hook.build_loss(config=None, models=None) == "B"


def test_a_wrapper_is_not_an_owner(write):
    wrapper = NEW_STYLE.format(hook="build_loss", arguments="") + "\nseen = []"
    first = variant(write, wrapper, "first.py")
    second = variant(write, wrapper, "second.py")
    third = variant(write, "@hookimpl\ndef build_loss(): return 3", "third.py")
    plugins = load("fence", [first, second, third])
    assert plugins.hook.build_loss(config=None, models=None) == 3
    (info,) = (info for info in plugins.describe() if info.name == "build_loss")
    assert info.owner.plugin == "third.py"
    assert [wrapper.plugin for wrapper in info.wrappers] == ["second.py", "first.py"]
    assert [function.plugin for function in info.shadowed] == ["fence"]


def test_a_wrapper_that_loses_the_answer_is_blamed_and_not_the_owner(write):
    v = variant(
        write,
        """
        @hookimpl(wrapper=True)
        def build_loss():
            result = yield
            print(result)
        """,
    )
    hook = load("fence", [v]).hook
    text = message(lambda: hook.build_loss(config=None, models=None))
    assert "wrapper `build_loss` (v.py:4) returned None" in text
    assert "`return result`" in text
    assert "recipe.py" not in text


def test_an_owner_that_returns_none_is_blamed_and_not_the_wrapper(write):
    wrapper = variant(
        write, "seen = []\n" + NEW_STYLE.format(hook="build_loss", arguments=""), "timing.py"
    )
    owner = variant(write, "@hookimpl\ndef build_loss(): pass", "owner.py")
    hook = load("fence", [wrapper, owner]).hook
    text = message(lambda: hook.build_loss(config=None, models=None))
    assert text.startswith("owner.py:4: `build_loss` of `owner.py` returned None")
    assert "timing.py" not in text


# --- merged and observed hooks --------------------------------------------------------------

SECTION = """
from dataclasses import dataclass

@dataclass(frozen=True)
class {name}Section:
    x: int = 1

@hookimpl
def config_sections():
    return {{"{section}": {name}Section}}
"""


def test_sections_are_merged(write):
    first = variant(write, SECTION.format(name="A", section="a"), "first.py")
    second = variant(write, SECTION.format(name="B", section="b"), "second.py")
    plugins = load("fence", [first, second])
    merged = plugins.hook.config_sections()
    assert {name: section.__name__ for name, section in merged.items()} == {
        "a": "ASection",
        "b": "BSection",
    }
    assert list(plugins.sections({"train": dict})) == ["train", "a", "b"]


def test_two_sections_of_one_name_clash(write):
    first = variant(write, SECTION.format(name="A", section="a"), "first.py")
    second = variant(write, SECTION.format(name="B", section="a"), "second.py")
    text = message(load("fence", [first, second]).hook.config_sections)
    assert "section `a`" in text
    assert "`first.py` (first.py:10) and by `second.py` (second.py:10)" in text


def test_a_section_of_the_launcher_is_taken(write):
    v = variant(write, SECTION.format(name="A", section="train"))
    text = message(load("fence", [v]).sections, {"train": dict})
    assert "section `train`" in text
    assert "the launcher itself and by `v.py` (v.py:10)" in text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("pass", "returned None: did you forget `return ...`?"),
        ("return {'a': 1}", "must return a dict of dataclasses by name, and returned {'a': 1}"),
        ("return ['a']", "must return a dict of dataclasses by name, and returned ['a']"),
    ],
)
def test_sections_of_the_wrong_type(write, body, says):
    v = variant(write, f"@hookimpl\ndef config_sections(): {body}")
    text = message(load("fence", [v]).hook.config_sections)
    assert text.startswith("v.py:4: `config_sections` of `v.py` ")
    assert says in text


def test_problems_of_all_plugins_are_one_list(write):
    first = variant(write, "@hookimpl\ndef check_config(config): return ['a', 'b']", "first.py")
    second = variant(write, "@hookimpl\ndef check_config(): return []", "second.py")
    third = variant(write, "@hookimpl\ndef check_config(config): return [config]", "third.py")
    hook = load("fence", [first, second, third]).hook
    assert hook.check_config(config="c") == ["a", "b", "c"]
    assert load("fence", []).hook.check_config(config="c") == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("config", "returned None: did you forget `return ...`?"),
        ("return 'no such file'", "must return a list of strings, and returned 'no such file'"),
        ("return [1]", "must return a list of strings, and returned [1]"),
    ],
)
def test_problems_of_the_wrong_type(write, body, says):
    fine = variant(write, "@hookimpl\ndef check_config(): return ['a']", "fine.py")
    v = variant(write, f"@hookimpl\ndef check_config(config): {body}")
    hook = load("fence", [v, fine]).hook
    text = message(lambda: hook.check_config(config="c"))
    assert text.startswith("v.py:4: `check_config` of `v.py` ")
    assert says in text


def test_a_wrapper_that_spoils_a_merged_hook(write):
    v = variant(write, "@hookimpl(wrapper=True)\ndef check_config(config): yield")
    hook = load("fence", [v]).hook
    text = message(lambda: hook.check_config(config="c"))
    assert "wrapper `check_config` (v.py:4)" in text


def test_observers_are_all_told_and_may_return_none(write):
    body = """
    told = []

    @hookimpl
    def on_step_end(state):
        told.append(state)
    """
    first, second = variant(write, body, "first.py"), variant(write, body, "second.py")
    hook = load("fence", [first, second]).hook
    hook.on_step_end(state="state", output="output")
    assert sys.modules[load_name("first.py")].told == ["state"]
    assert sys.modules[load_name("second.py")].told == ["state"]


# --- what is wrong in a plugin --------------------------------------------------------------

MISTAKES = {
    "unknown hook": (
        "@hookimpl\ndef build_los(config): return 1",
        ["v.py:4: `build_los`", "no hook `build_los`; did you mean `build_loss`"],
    ),
    "unknown hook by specname": (
        "@hookimpl(specname='build_los')\ndef loss(config): return 1",
        ["v.py:4: `loss`", "no hook `build_los`; did you mean `build_loss`"],
    ),
    "forgotten mark": (
        "def build_loss(config): return 1",
        ["v.py:3: `build_loss` has the name of a hook but is not marked", "`@hookimpl` above it"],
    ),
    "wrong mark": (
        "from hooks import hookspec\n\n@hookspec\ndef build_loss(config): return 1",
        ["v.py:6: `build_loss` is marked with `@hookspec`", "`@hookimpl`"],
    ),
    "another project's mark": (
        "import pluggy\n\n@pluggy.HookimplMarker('pytest')\ndef build_loss(config): return 1",
        ["v.py:6: `build_loss` has the name of a hook but is not marked"],
    ),
    "unknown argument": (
        "@hookimpl\ndef build_loss(config, model): return 1",
        [
            "v.py:4: `build_loss` takes an argument `model`",
            "did you mean `models`?",
            "It can take `config`, `models`.",
        ],
    ),
    "another hook's argument": (
        "@hookimpl\ndef on_step_end(state, batch): pass",
        ["an argument `batch` that the hook `on_step_end` does not have. It can take `state`"],
    ),
    "argument of a hook without any": (
        "@hookimpl\ndef config_sections(config): return {}",
        ["an argument `config`", "It takes no arguments."],
    ),
    "default": (
        "@hookimpl\ndef build_loss(config, models=None): return 1",
        ["v.py:4: `build_loss` gives the argument `models` a default", "always be None"],
    ),
    "default of an unknown argument": (
        "@hookimpl\ndef build_loss(config, scale=2.0): return 1",
        ["v.py:4: `build_loss` takes an argument `scale`"],
    ),
    "star arguments": (
        "@hookimpl\ndef build_loss(*args, **kwargs): return 1",
        ["`*args`, which would always be empty", "`**kwargs`, which would always be empty"],
    ),
    "keyword only": (
        "@hookimpl\ndef build_loss(*, config): return 1",
        ["takes `config` by keyword only"],
    ),
    "wrapper without yield": (
        "@hookimpl(wrapper=True)\ndef build_loss(config): return 1",
        ["v.py:4: `build_loss` is a wrapper without `yield`"],
    ),
    "yield without wrapper": (
        "@hookimpl\ndef build_loss(config):\n    yield",
        ["v.py:4: `build_loss` contains `yield`", "`@hookimpl(wrapper=True)`"],
    ),
    "async": (
        "@hookimpl\nasync def build_loss(config): return 1",
        ["v.py:4: `build_loss` is `async`", "Write `def`"],
    ),
    "both styles of wrapper": (
        "@hookimpl(wrapper=True, hookwrapper=True)\ndef build_loss(config):\n    yield",
        ["both `wrapper=True` and `hookwrapper=True`"],
    ),
    "tryfirst": (
        "@hookimpl(tryfirst=True)\ndef build_loss(config): return 1",
        ["v.py:4: `build_loss` is marked `tryfirst=True`", "one owner, the plugin given last"],
    ),
    "trylast": (
        "@hookimpl(trylast=True)\ndef build_loss(config): return 1",
        ["v.py:4: `build_loss` is marked `trylast=True`"],
    ),
    "two answers in one plugin": (
        "@hookimpl\ndef build_loss(): return 1\n\n"
        "@hookimpl(specname='build_loss')\ndef other(): return 2",
        ["`build_loss` (v.py:4) and `other` (v.py:7) both answer the hook `build_loss`"],
    ),
    "not a function": (
        "import functools\n\nbuild_loss = hookimpl(functools.partial(print, 1))",
        ["v.py: `build_loss` is marked with `@hookimpl` but is a partial"],
    ),
    "method": (
        "class Mine:\n    @hookimpl\n    def build_loss(self): return 1",
        ["v.py:5: `Mine.build_loss` is a method", "module-level"],
    ),
    "static method": (
        "class Mine:\n    @staticmethod\n    @hookimpl\n    def build_loss(config): return 1",
        ["v.py:6: `Mine.build_loss` is a method"],
    ),
    "imported under the name of a hook": (
        "from fence_plugin.recipe import build_loss",
        [
            "v.py: `build_loss` is imported from fence_plugin.recipe under the name of a hook",
            "import fence_plugin.recipe as base",
        ],
    ),
    "nothing": ("x = 1", ["v.py implements no hook", "`@hookimpl`", "launcher hooks"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_plugin(write, mistake):
    body, says = MISTAKES[mistake]
    text = message(load, "fence", [write("v.py", f"from hooks import hookimpl\n\n{body}\n")])
    for part in says:
        assert part in text


def test_all_mistakes_of_all_plugins_are_reported_together(write):
    first = variant(
        write,
        """
        @hookimpl
        def build_los(config):
            return 1

        def train_step(state, batch):
            return 1

        @hookimpl
        def apply_precision(configuration, model):
            return 1
        """,
        "first.py",
    )
    second = variant(write, "@hookimpl\ndef precompute(kache): return 1", "second.py")
    text = message(load, "fence", [first, second])
    assert text.startswith("5 problems:\n- ")
    for part in (
        "first.py:4: `build_los`",
        "first.py:7: `train_step`",
        "did you mean `config`?",
        "did you mean `models`?",
        "second.py:4: `precompute`",
    ):
        assert part in text


def test_correct_uses_that_look_like_mistakes(write):
    write("helpers.py", "def apply_precision(): return 'a helper'\ndef build_loss(): return 1")
    v = variant(
        write,
        """
        import functools
        from helpers import apply_precision, build_loss as helper_loss
        from fence_plugin.recipe import export_weights as recipe_export

        def timed(function):
            @functools.wraps(function)
            def call(*args, **kwargs):
                return function(*args, **kwargs)
            return call

        @timed
        @hookimpl
        def build_loss(models): return ["timed", models]

        @hookimpl(specname="build_models")
        def my_models(stage): return stage

        @hookimpl(tryfirst=True)
        def on_step_end(): pass

        @hookimpl(wrapper=True, tryfirst=True)
        def train_step(): return (yield)

        @hookimpl(optionalhook=True)
        def on_coffee_break(): pass

        def make(answer):
            def collate(config): return answer
            return collate

        build_collate_fn = hookimpl(make("made"))

        class build_dataset:
            pass
        """,
    )
    plugins = load("fence", [v])
    hook = plugins.hook
    assert hook.build_loss(config=None, models="m") == ["timed", "m"]
    (loss,) = (info for info in plugins.describe() if info.name == "build_loss")
    assert Path(v).read_text().splitlines()[loss.owner.line - 1].startswith("def build_loss")
    assert hook.build_models(config=None, stage="train") == "train"
    assert hook.build_collate_fn(config=0, models=0, dataset=0, cache=0) == "made"
    assert hook.export_weights(config=0, models=0, directory=0, values=0) == []


# --- required hooks -------------------------------------------------------------------------


def test_all_missing_hooks_are_listed(install, write):
    source = "from hooks import hookimpl\n\n@hookimpl\ndef build_loss(): return 1"
    install("half", {"launcher.recipes": {"half": "half_recipe"}}, {"half_recipe.py": source})
    text = message(load, "half", [])
    assert "the recipe `half` is not complete" in text
    assert "half_recipe.py" in text
    required = {
        info.name for info in describe_defaults() if info.kind == "owned" and not info.owner
    }
    assert required  # derived from the specifications and the defaults
    for name in required - {"build_loss"}:
        assert f"`{name}(" in text
    assert "build_loss" not in text and "train_step" not in text


def test_a_variant_can_complete_a_recipe(install, write, recipe_source):
    whole, _, rest = recipe_source.partition("@hookimpl\ndef build_dataset")
    source = whole + "\n\n".join(rest.split("\n\n\n")[1:])
    install("half", {"launcher.recipes": {"half": "half_recipe"}}, {"half_recipe.py": source})
    assert "answer `build_dataset(config, dist)`. Define" in message(load, "half", [])
    load("half", [variant(write, "@hookimpl\ndef build_dataset(): return [1]")])


# --- finding recipes ------------------------------------------------------------------------


def test_recipes_are_listed_without_being_imported(install):
    source = '"""Explodes.\n\nReally."""\nraise RuntimeError("imported")'
    install("bombs", {"launcher.recipes": {"bomb": "bomb_recipe"}}, {"bomb_recipe.py": source})
    infos = {info.name: info for info in list_recipes()}
    assert infos["bomb"].summary == "Explodes."
    assert infos["bomb"].error is None
    fence = infos["fence"]
    assert (fence.distribution, fence.version) == ("fences", "1.2")
    assert (fence.module, fence.summary) == ("fence_plugin.recipe", "Paints fences.")
    assert "fence_plugin" not in sys.modules


@pytest.mark.parametrize(
    ("value", "files", "says"),
    [
        ("no_such_module", {}, "no module `no_such_module`"),
        ("a_pkg.nothing", {"a_pkg/__init__.py": ""}, "no module `a_pkg.nothing`"),
        ("b_recipe", {"b_recipe.py": "def f(:\n"}, "b_recipe.py:1: "),
        ("c_recipe", {"c_recipe.py": "import no_such_lib"}, "`no_such_lib`, which is not inst"),
        ("d_recipe:Recipe", {"d_recipe.py": "class Recipe: pass"}, "not the name of a module"),
        ("not a module!", {}, "not the name of a module"),
        ("e_recipe", {"e_recipe.py": "# \x00"}, "null bytes"),
    ],
)
def test_a_broken_recipe_is_listed_with_its_error(install, value, files, says):
    install("broken", {"launcher.recipes": {"broken": value}}, files)
    infos = {info.name: info for info in list_recipes()}
    assert says in infos["broken"].error
    assert infos["fence"].error is None
    assert "fence_plugin.recipe" not in sys.modules


def test_unknown_recipe():
    text = message(load, "fense", [])
    assert "there is no recipe `fense`; did you mean `fence`?" in text
    assert "Installed: " in text and "launcher recipes" in text


def test_a_recipe_given_as_a_file():
    assert "`-p recipe.py`" in message(load, "recipe.py", [])


def test_no_recipe_installed(monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    assert "No recipe is installed" in message(load, "fence", [])


def test_two_distributions_with_one_recipe_name(install):
    install("fences-fork", {"launcher.recipes": {"fence": "fence_plugin.recipe"}}, {}, "0.9")
    text = message(load, "fence", [])
    assert "`fence` is offered by 2 installed distributions" in text
    assert "fences 1.2" in text and "fences-fork 0.9" in text
    errors = [info.error for info in list_recipes() if info.name == "fence"]
    assert len(errors) == 2
    assert all("fences 1.2" in error and "fences-fork 0.9" in error for error in errors)


def test_the_module_of_a_recipe_is_missing(install):
    install("gone", {"launcher.recipes": {"gone": "gone_recipe"}}, {})
    text = message(load, "gone", [])
    assert "`gone` cannot be loaded: there is no module `gone_recipe`" in text
    assert "gone 1.0" in text


def test_a_recipe_that_fails_to_import_keeps_its_exception(install):
    install("bombs", {"launcher.recipes": {"bomb": "bomb"}}, {"bomb.py": "def f():\n  1/0\nf()"})
    with pytest.raises(PluginImportError, match=r"the recipe `bomb` \(bomb, of bombs 1.0\)") as e:
        load("bomb", [])
    cause = e.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert cause.__traceback__.tb_frame.f_code.co_filename.endswith("bomb.py")


def test_only_the_chosen_recipe_is_imported(install):
    install("bombs", {"launcher.recipes": {"bomb": "bomb"}}, {"bomb.py": "1/0"})
    load("fence", [])
    assert "bomb" not in sys.modules


# --- finding variants -----------------------------------------------------------------------


def test_installed_variants_are_active_only_when_asked_for(install):
    source = "from hooks import hookimpl\n\n@hookimpl\ndef build_loss(): return 'named'"
    install("more", {"launcher.variants": {"fast": "more_fast"}}, {"more_fast.py": source})
    assert load("fence", []).hook.build_loss(config=0, models=0) == "the recipe's loss"
    assert "more_fast" not in sys.modules
    assert load("fence", ["fast"]).hook.build_loss(config=0, models=0) == "named"
    text = message(load, "fence", ["fats"])
    assert "there is no variant `fats`; did you mean `fast`?" in text
    assert "Installed: fast" in text


def test_a_variant_without_its_suffix(write):
    variant(write, "@hookimpl\ndef build_loss(): return 1", "mine.py")
    assert "did you mean the file, `-p mine.py`?" in message(load, "fence", ["mine"])


def test_a_variant_file_that_is_missing(write, tmp_path):
    text = message(load, "fence", ["sub/mine.py"])
    assert "there is no variant file `sub/mine.py`" in text
    assert str(tmp_path / "work" / "sub" / "mine.py") in text


def test_a_variant_that_is_a_folder_or_no_python(write):
    write("folder.py/x.txt", "")
    assert "is a folder" in message(load, "fence", ["folder.py"])
    write("sub/run.yaml", "")
    assert "does not end in .py" in message(load, "fence", ["sub/run.yaml"])


def test_a_variant_with_a_syntax_error(write):
    text = message(load, "fence", [write("v.py", "x = 1\nif x\n    y = 2\n")])
    assert text.startswith("v.py:2: this is not valid Python")
    assert text.splitlines()[1] == "    if x"


@pytest.mark.parametrize("content", [b"x = '\xff'", b"x = 1\x00"])
def test_a_variant_that_is_not_text(write, content):
    Path("v.py").write_bytes(content)
    text = message(load, "fence", ["v.py"])
    assert text.startswith("v.py") and "this is not valid Python" in text


def test_a_script_that_ends_itself_is_no_variant(write):
    v = write("v.py", "import sys\nsys.exit(0)\n")
    with pytest.raises(PluginImportError, match=r"the variant v\.py failed") as caught:
        load("fence", [v])
    assert isinstance(caught.value.__cause__, SystemExit)


def test_a_variant_that_fails_to_import(write):
    v = write("v.py", "def f():\n    1 / 0\n\nf()\n")
    with pytest.raises(PluginImportError, match=r"the variant v\.py") as caught:
        load("fence", [v])
    traceback = caught.value.__cause__.__traceback__
    assert traceback.tb_frame.f_code.co_filename.endswith("v.py")
    assert not any("launcher_variant_v" in name for name in sys.modules)


def test_a_user_error_at_import_stays_one(write):
    v = write("v.py", "from launcher.training.errors import UserError\nraise UserError('no NPU')")
    assert message(load, "fence", [v]) == "no NPU"


def test_a_variant_given_twice(write):
    variant(write, "@hookimpl\ndef build_loss(): return 1")
    text = message(load, "fence", ["v.py", "./v.py"])
    assert "v.py is given twice" in text
    assert "Leave one out" in text


def test_the_recipe_given_as_a_variant(site):
    text = message(load, "fence", [str(site / "fence_plugin" / "recipe.py")])
    assert "is given twice, as the recipe `fence` and as the variant" in text


def test_variants_of_one_file_name_do_not_collide(write):
    first = variant(write, "@hookimpl\ndef build_loss(): return 1", "a/my-variant.py")
    second = variant(write, "@hookimpl\ndef train_step(): return 2", "b/my-variant.py")
    hook = load("fence", [first, second]).hook
    assert hook.build_loss(config=None, models=None) == 1
    assert hook.train_step(state=None, batch=None) == 2
    assert load_name(first) != load_name(second)


def test_the_source_of_a_variant_can_be_read(write):
    """Graph mode compiles from source."""
    v = variant(write, "class Loss:\n    x = 1\n\n@hookimpl\ndef build_loss(): return Loss")
    cell = load("fence", [v]).hook.build_loss(config=None, models=None)
    assert inspect.getsource(cell) == "class Loss:\n    x = 1\n"
    assert sys.modules[cell.__module__].Loss is cell


def test_a_variant_can_import_what_lies_next_to_it(write, site):
    write("sub/next_door.py", "answer = 42")
    (site / "installed_library.py").write_text("answer = 'installed'")
    write("sub/installed_library.py", "answer = 'hides what is installed'")
    v = variant(
        write,
        """
        import installed_library, next_door

        @hookimpl
        def build_loss(): return next_door.answer, installed_library.answer
        """,
        "sub/v.py",
    )
    hook = load("fence", [v]).hook
    assert hook.build_loss(config=None, models=None) == (42, "installed")


def test_a_relative_path_starts_at_the_yaml_file_then_at_the_working_directory(write, tmp_path):
    write("here.py", "")
    write("configs/here.py", "")
    write("only_cwd.py", "")
    work = tmp_path / "work"
    assert locate("here.py") == str(work / "here.py")
    assert locate("here.py", work / "configs") == str(work / "configs" / "here.py")
    assert locate("only_cwd.py", work / "configs") == str(work / "only_cwd.py")
    text = message(locate, "gone.py", work / "configs")
    assert str(work / "configs" / "gone.py") in text and str(work / "gone.py") in text
    assert locate("fast", work / "configs") == "fast"


# --- what is said about plugins -------------------------------------------------------------


def test_every_hook_is_described_with_owner_file_and_line(write, site):
    v = variant(
        write,
        """
        @hookimpl(
            specname="build_loss",
        )
        def robust_loss(config):
            return 1

        @hookimpl
        def on_step_end(state):
            pass
        """,
    )
    infos = {info.name: info for info in load("fence", [v]).describe()}
    loss = infos["build_loss"]
    assert loss.kind == "owned"
    assert loss.arguments == ("config", "models")
    assert loss.summary.startswith("The forward pass and its loss")
    assert loss.owner.plugin == "v.py"
    assert loss.owner.function == "robust_loss"
    assert loss.owner.file == locate("v.py")
    assert Path("v.py").read_text().splitlines()[loss.owner.line - 1].startswith("def robust_loss")
    assert loss.implementations == (loss.owner,)
    (shadowed,) = loss.shadowed
    assert shadowed.file == str(site / "fence_plugin" / "recipe.py")
    assert infos["train_step"].owner.plugin == "launcher.defaults"
    assert infos["on_step_end"].owner is None
    assert [f.plugin for f in infos["on_step_end"].implementations] == ["v.py"]


def test_the_files_of_a_run(write, site):
    v = variant(write, "@hookimpl\ndef build_loss(): return 1")
    configs = site / "fence_plugin" / "configs"
    configs.mkdir()
    (configs / "fence.yaml").write_text("x: 1\n")
    files = {Path(f["file"]).name: f for f in load("fence", [v]).files()}
    assert set(files) == {"defaults.py", "__init__.py", "recipe.py", "fence.yaml", "v.py"}
    assert files["recipe.py"]["name"] == "fence"
    assert (files["recipe.py"]["distribution"], files["recipe.py"]["version"]) == ("fences", "1.2")
    assert files["v.py"]["distribution"] is None
    assert files["v.py"]["sha256"] == hashlib.sha256(Path("v.py").read_bytes()).hexdigest()


def test_the_configurations_a_recipe_brings_are_found_without_importing_it(site):
    launchers = plugins_module.recipe_configs("fence")
    assert set(launchers) == {f"precision/policy_{letter}" for letter in "abc"}
    configs = site / "fence_plugin" / "configs"
    configs.mkdir()
    (configs / "fence.yaml").write_text("")
    (configs / "precision").mkdir()
    own = configs / "precision" / "policy_a.yaml"  # the recipe's own comes before the launcher's
    own.write_text("")
    assert plugins_module.recipe_configs("fence") == {
        **launchers, "fence": configs / "fence.yaml", "precision/policy_a": own
    }  # fmt: skip
    assert "fence_plugin.recipe" not in sys.modules


def test_the_defaults_make_no_mistakes():
    assert {info.name for info in describe_defaults() if info.owner} >= {"train_step", "precompute"}


def test_loading_imports_no_framework(site):
    code = (
        "import sys\n"
        "from launcher.plugins import load\n"
        "load('fence', [])\n"
        "print({'mindspore', 'mindone', 'transformers', 'datasets'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{site}:{root}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
