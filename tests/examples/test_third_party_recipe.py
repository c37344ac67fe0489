"""A recipe that is no part of this project, installed by pip: nothing here knows of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from launcher.training.random import StepDraws
from tests.test_imports import imports_of, within

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "examples" / "third_party_recipe"
DISTRIBUTION = "tiny-denoiser-recipe 0.1.0"
STEPS, BATCH = 30, 4  # the batch is the quickstart's
QUICKSTART = ("--recipe", "tiny_denoiser", "--config", "quickstart")


def copy_of(source, folder):
    """Building leaves build/ and *.egg-info where the source is."""
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    return shutil.copytree(source, folder / "source", ignore=ignored)


def copy_of_sample(folder):
    return copy_of(SAMPLE, folder)


def pip_install(source, target):
    """Build and install, offline, with the setuptools of this environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(target), str(source)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return target


def python(path, *arguments):
    """Python with folders of installed packages besides this environment's."""
    folders = [path] if isinstance(path, Path) else path
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def launch(path, *arguments):
    return python(path, "-m", "launcher", *arguments)


def refusal(path, output_dir, *arguments):
    """The one paragraph in which a run is refused, before anything is written."""
    process = launch(path, *arguments, f"output_dir={output_dir}")
    assert process.returncode == 2, process.stderr
    (paragraph,) = process.stderr.strip().splitlines()
    assert not output_dir.exists()
    return paragraph


def launch_well(path, *arguments):
    process = launch(path, *arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout


def hook_table(path, *arguments):
    return {hook["name"]: hook for hook in json.loads(launch_well(path, "hooks", *arguments))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("third_party")


@pytest.fixture(scope="module")
def site(folder):
    """Where the sample is installed."""
    return pip_install(copy_of_sample(folder), folder / "site")


# --- what it is made of ---------------------------------------------------------------------


def test_it_imports_the_contract_and_the_toolkit_and_nothing_else_of_ours():
    allowed = ("hooks", "launcher.training", "tiny_denoiser", "mindspore", "numpy")
    files = (SAMPLE / "tiny_denoiser").rglob("*.py")
    imports = [item for file in files for item in imports_of(file, SAMPLE)]
    assert len(imports) > 20
    wrong = [
        f"{item.where}: {item.target}"
        for item in imports
        if item.target.partition(".")[0] not in sys.stdlib_module_names
        and not any(within(item.target, package) for package in allowed)
    ]
    assert wrong == []


def test_nothing_of_ours_knows_it():
    files = [ROOT / "setup.cfg", ROOT / "pyproject.toml"]
    for package in ("hooks", "launcher", "flux_common", "flux_controlnet_plugin"):
        files += (ROOT / package).rglob("*.py")
    knowing = [str(file) for file in files if re.search("tiny.denoiser", file.read_text())]
    assert knowing == []


# --- installed ------------------------------------------------------------------------------


def test_it_is_listed_with_its_distribution(site):
    lines = launch_well(site, "recipes").splitlines()
    (line,) = [line for line in lines if line.startswith("tiny_denoiser ")]
    _, distribution, summary = re.split(r"  +", line)
    assert distribution == DISTRIBUTION
    assert summary.startswith("Train a small convolutional network")
    assert any(line.startswith("flux_controlnet ") for line in lines)


def test_hooks_are_answered_as_its_readme_says(site):
    hooks = hook_table(site, "--recipe", "tiny_denoiser", "--json")
    readme = (SAMPLE / "README.md").read_text(encoding="utf-8")
    rows = [row.strip("|").split("|") for row in re.findall(r"^\| `.*\|$", readme, re.M)]
    must, have_defaults, can_be_left_out = (re.findall(r"`(\w+)`", names) for names, _ in rows)

    def owned_by(plugin):
        return {n for n, h in hooks.items() if h["owner"] and h["owner"]["plugin"] == plugin}

    assert set(must) == owned_by("tiny_denoiser")
    assert set(have_defaults) == owned_by("launcher.defaults")
    assert set(can_be_left_out) == {n for n, h in hooks.items() if h["kind"] != "owned"}
    assert all(str(site) in hooks[name]["owner"]["file"] for name in must)


def test_a_variant_of_the_package_answers_the_loss(site):
    hooks = hook_table(site, "--recipe", "tiny_denoiser", "-p", "tiny_denoiser_l1", "--json")
    assert hooks["build_loss"]["owner"]["plugin"] == "tiny_denoiser_l1"
    assert hooks["build_models"]["owner"]["plugin"] == "tiny_denoiser"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("model.widht=8", "did you mean model.width?"),
        ("model.depth=1", "model.depth"),
        ("noise.sigma_min=2", "noise.sigma_min is 2.0 and noise.sigma_max 0.5"),
        ("model.depth=16", "Set model.depth to at most 15"),
        ("data.image_dir=examples/quickstart/crosses/imags", "data.image_dir is "),
    ],
)
def test_a_mistake_is_one_paragraph(site, folder, setting, says):
    assert says in refusal(site, folder / "refused", *QUICKSTART, setting)


# --- trained --------------------------------------------------------------------------------


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def noise_of(step):
    """What the quickstart adds to a batch: the standard deviation uniform between 0 and 0.5."""
    draws = StepDraws(0, step, range(BATCH))
    sigma = 0.5 * draws.uniform("sigma")
    return sigma[:, None, None, None] * draws.normal("noise", (3, 32, 32)).astype(np.float64)


@pytest.fixture(scope="module")
def run(site, folder):
    output_dir = folder / "run"
    stdout = launch_well(site, *QUICKSTART, f"output_dir={output_dir}", f"max_train_steps={STEPS}")
    assert stdout.splitlines() == [str(output_dir / "denoiser" / "model.safetensors")]
    return output_dir


def test_the_denoiser_learns_what_noise_is(run):
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    unlearned = [np.square(noise_of(step)).mean() for step in range(STEPS)]
    left = [line["loss"] / power for line, power in zip(lines, unlearned)]
    assert left[0] == pytest.approx(1, rel=1e-5)  # the untrained network predicts no noise
    assert np.mean(left[-5:]) < 0.8


def test_what_ran_is_on_record(run, site):
    plugins = json.loads((run / "provenance.json").read_text())["plugins"]
    files = {Path(p["file"]).name: p for p in plugins if p["name"] == "tiny_denoiser"}
    assert {"recipe.py", "model.py", "quickstart.yaml"} <= set(files)
    recipe = files["recipe.py"]
    assert f"{recipe['distribution']} {recipe['version']}" == DISTRIBUTION


def test_the_weights_are_used_as_its_readme_says(run, site):
    """The README's code, around it what defines `noisy` and what looks at `clean`."""
    readme = (SAMPLE / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    path = "runs/denoiser/denoiser/model.safetensors"
    assert path in code
    before = (
        "import numpy as np\n"
        "noise = 0.3 * np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)\n"
        "import mindspore\n"
        "noisy = mindspore.Tensor(0.5 + noise)\n"
    )
    after = (
        "remaining = float(np.square(clean.asnumpy() - 0.5).mean() / np.square(noise).mean())\n"
        "ms.set_seed(0)\n"
        "start = Denoiser(width=8, depth=4).parameters_dict()\n"
        "moved = [bool((start[n].asnumpy() != w.asnumpy()).any()) for n, w in weights.items()]\n"
        "import json; print(json.dumps([remaining, moved]))\n"
    )
    code = code.replace(path, str(run / "denoiser" / "model.safetensors"))
    process = python(site, "-c", before + code + after)
    assert process.returncode == 0, process.stderr
    remaining, moved = json.loads(process.stdout.splitlines()[-1])
    assert remaining < 0.9
    assert moved == [True] * 8  # weight and bias of each of four layers


def test_the_variant_trains_on_the_absolute_error_in_half_precision(run, site, folder):
    output_dir = folder / "l1"
    launch_well(
        site,
        *(*QUICKSTART, "-p", "tiny_denoiser_l1", f"output_dir={output_dir}"),
        *("max_train_steps=3", "mixed_precision=fp16"),
    )
    first, *_, last = metrics(output_dir)
    assert first["loss"] == pytest.approx(np.abs(noise_of(0)).mean(), rel=1e-5)
    assert not last["skipped"]
    weights = load_file(output_dir / "denoiser" / "model.safetensors")
    assert weights.keys() == load_file(run / "denoiser" / "model.safetensors").keys()
    for name, array in weights.items():
        assert array.dtype == np.float32 and np.isfinite(array).all(), name
    assert weights["layers.6.weight"].any()  # was zero


# --- broken ---------------------------------------------------------------------------------


@pytest.fixture
def broken(site, tmp_path):
    """Spoil the installed recipe: `broken("1 / 0")` puts a line at its end."""

    def spoil(line):
        other = shutil.copytree(site, tmp_path / "site")
        with (other / "tiny_denoiser" / "recipe.py").open("a") as file:
            file.write(f"\n{line}\n")
        return other

    return spoil


@pytest.mark.parametrize(
    ("line", "listed", "says"),
    [
        (
            "import no_such_library",
            "imports `no_such_library`, which is not installed",
            "ModuleNotFoundError: ",
        ),
        ("def f(:", "recipe.py:", "SyntaxError: "),
        (
            "raise RuntimeError('no such NPU')",
            "RuntimeError: no such NPU",
            "RuntimeError: no such NPU",
        ),
        (
            "@hookimpl\ndef buld_loss(config): ...",
            "did you mean `build_loss`",
            "did you mean `build_loss`",
        ),
    ],
)
def test_a_broken_one_breaks_no_other(broken, tmp_path, line, listed, says):
    site = broken(line)
    lines = launch_well(site, "recipes").splitlines()
    (number,) = [n for n, text in enumerate(lines) if text.startswith("tiny_denoiser ")]
    assert DISTRIBUTION in lines[number]
    errors = [text for text in lines if "cannot be used" in text]
    assert errors == [lines[number + 1]]
    assert listed in errors[0]

    hooks = hook_table(site, "--recipe", "flux_controlnet", "--json")
    assert hooks["build_loss"]["owner"]["plugin"] == "flux_controlnet"

    process = launch(site, *QUICKSTART, f"output_dir={tmp_path / 'run'}")
    assert process.returncode != 0
    assert re.search(r"`tiny_denoiser` \(tiny_denoiser.recipe, of |/tiny_denoiser/recipe.py:",
                     process.stderr)  # fmt: skip
    assert says in process.stderr
    assert not (tmp_path / "run").exists()


def test_two_distributions_with_its_recipe(site, tmp_path):
    source = copy_of_sample(tmp_path)
    project = source / "pyproject.toml"
    name = 'name = "tiny-denoiser-recipe"'
    assert name in project.read_text()
    project.write_text(project.read_text().replace(name, 'name = "tiny-denoiser-fork"'))
    both = [site, pip_install(source, tmp_path / "fork")]

    lines = launch_well(both, "recipes").splitlines()
    errors = [line for line in lines if "cannot be used" in line]
    assert len(errors) == 2
    for error in errors:
        assert DISTRIBUTION in error and "tiny-denoiser-fork 0.1.0" in error

    process = launch(both, *QUICKSTART, f"output_dir={tmp_path / 'run'}")
    assert process.returncode == 2
    assert "`tiny_denoiser` is offered by 2 installed distributions" in process.stderr
    assert hook_table(both, "--recipe", "flux_controlnet", "--json")
