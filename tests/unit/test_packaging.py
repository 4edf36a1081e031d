"""What holds the house together: pinned versions, what the package says of itself, and arrows that point one way."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import pytest

import causal_sam
from causal_sam.cli.doctor import normalised, pinned_versions

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lib" / "causal_sam"
PINS = pinned_versions((ROOT / "requirements.txt").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Part of the package -> the parts that it may import besides itself and `COMMON`.
COMMON = {"errors", "atomic", "json_lines", "plain_cache"}
ARROWS = {part: set() for part in COMMON} | {
    "imaging": set(),
    "export": {"imaging"},
    "text": set(),
    "chat": set(),
    "data_sets": {"imaging"},
    "phantom": {"imaging", "style"},
    "sam": {"imaging"},
    "style": {"imaging", "text", "chat"},
    "notes": {"text", "chat"},
    "volume": {"imaging", "sam", "text"},
    "prompting": {"imaging", "sam", "text", "volume"},
    "simulation": {"imaging", "notes", "prompting"},
    "correction": {"imaging", "sam", "text", "volume", "prompting", "notes"},
}
ARROWS["training"] = ARROWS["correction"] | {"correction", "style", "simulation", "phantom", "volume"}
ARROWS["site"] = ARROWS["training"] | {"training"}
ARROWS["protocol"] = ARROWS["site"] | {"site"}
ARROWS["benchmark"] = ARROWS["site"] | {"site", "data_sets"}
ARROWS["cli"] = ARROWS["benchmark"] | {"benchmark", "export", "protocol"}
# Part -> packages that it must do without.
STRANGERS = {
    "imaging": {"torch", "torchvision", "monai", "segment_anything"},
    "sam": {"monai"},
}


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            # `from causal_sam import sam` imports a part just as `import causal_sam.sam` does.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(part: str) -> list[Path]:
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def test_every_dependency_is_pinned():
    declared = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    names = {normalised(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in declared}
    assert names <= {normalised(name) for name in PINS}


def test_installing_the_requirements_installs_the_package():
    assert (ROOT / "requirements.txt").read_text().splitlines()[-1] == "-e ."


def test_every_part_has_its_arrows():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__"} == ARROWS.keys()


@pytest.mark.parametrize("part", sorted(ARROWS))
def test_arrows_point_one_way_and_parts_do_without_strangers(part):
    allowed = ARROWS[part] | COMMON | {part, "__version__"}
    strangers = STRANGERS.get(part, set()) | {"monailabel"}
    for path in sources(part):
        used = list(imports(path))
        up = {name.split(".")[1] for name in used if name.startswith("causal_sam.")} - allowed
        strange = {name.split(".")[0] for name in used} & strangers
        assert not up | strange, f"{path.relative_to(ROOT)} imports {up | strange}"


def test_what_ships_is_there_and_small():
    weights = files("causal_sam") / "sam" / "weights" / "compact.safetensors"
    assert 1e6 < Path(str(weights)).stat().st_size <= 25e6
    assert (files("causal_sam") / "py.typed").is_file()


def test_version_is_the_distributions():
    assert metadata.version("causal-sam") == causal_sam.__version__
