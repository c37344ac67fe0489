"""README.md is held to the code."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_generated_tables_are_up_to_date():
    check = [sys.executable, "scripts/readme_tables.py", "--check"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, f"run scripts/readme_tables.py {result.stderr}"


def test_the_first_run_is_a_configuration_that_the_recipe_takes(tmp_path):
    from launcher import plugins
    from launcher.config import read_overrides, read_yaml, resolve
    from launcher.sections import SECTIONS

    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    path = tmp_path / "my_run.yaml"
    path.write_text(text)
    recipe = plugins.load("flux_controlnet")
    arguments = re.search(r"--config my_run\.yaml (train\..*)", README)[1].split()
    config = resolve(recipe.sections(SECTIONS), [read_yaml(path), read_overrides(arguments)]).config
    assert config.train.learning_rate == 5e-6
    assert config.train.seed == 1
    assert config.data.sizes == ((512, 768),)


def test_links_and_files_that_it_names_exist():
    targets = re.findall(r"\]\(([^)#][^)]*)\)", README)
    local = [t for t in targets if not t.startswith("http")]
    assert len(local) > 3
    assert [t for t in local if not (ROOT / t).exists()] == []
    for command in re.findall(r"python (benchmarks/\S+\.py)", README):
        assert (ROOT / command).exists(), command
