"""README and documentation are right about commands, options, configuration keys, files and figures."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import nibabel
import numpy as np
import pytest
import typer

from causal_sam.cli import app
from serving.conf import AppConf, configuration_table

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
# The reports of the evidence are written by commands; CHANGELOG.md names what is gone.
PAGES = [README, *sorted(path for path in DOCS.rglob("*.md") if path.name != "report.md")]
COMMANDS = typer.main.get_command(app)
# Folders from which pages name files.
BASES = [ROOT / base for base in ("", "lib/causal_sam", "apps/causal_sam", "apps/causal_sam/serving", "training")]
FILE_NAMES = {
    path.name for folder in ("apps", "lib", "sample_configs", "training") for path in (ROOT / folder).rglob("*.*")
}
# Words that have given way to the field's own, such as trained, coarse mask, prefetch, training set.
OLD_WORDS = re.compile(r"\b(taught|teach\w*|learnt|drafts?|ahead|lessons?|jobs?|told)\b", re.IGNORECASE)
# Options of programs that are not ours.
OTHER_OPTIONS = {"--nproc-per-node", "--ssl_keyfile", "--ssl_certfile", "--app", "--logdir"}
FILE = re.compile(
    r"[\w.*-]+(/[\w.*-]+)*\.(py|yaml|yml|md|txt|sh|sbatch|toml)|(lib|apps|tests|training|docs|sample_configs)(/\w+)+/?"
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    """Inline code, outside of blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


def command_lines(page: Path) -> Iterator[list[str]]:
    """Words of each line of shell code, and of inline code that starts as a command does."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    for line in lines + [span for span in spans(page) if re.match(r"(causal-sam|make) \S", span)]:
        yield shlex.split(line, comments=True)


def calls(program: str) -> Iterator[tuple[str, list[str]]]:
    """Page and arguments of each call of a program."""
    for page in PAGES:
        for words in command_lines(page):
            if program in words:
                yield page.name, words[words.index(program) + 1 :]


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def all_options(command: click.Command) -> set[str]:
    inside = getattr(command, "commands", {}).values()
    return options_of(command).union(*(all_options(each) for each in inside))


def test_pages_and_sample_configurations_use_the_fields_words():
    for path in [*PAGES, *sorted((ROOT / "sample_configs").rglob("*.yaml"))]:
        assert OLD_WORDS.findall(path.read_text()) == [], path.name


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 160


def test_commands_and_their_options_exist():
    found = 0
    for page, words in calls("causal-sam"):
        command = COMMANDS
        while words and hasattr(command, "commands") and not words[0].startswith("-") and words[0] != "COMMAND":
            assert words[0] in command.commands, f"{page}: causal-sam {words[0]}"
            command, words = command.commands[words[0]], words[1:]
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= options_of(command), f"{page}: {command.name} {used - options_of(command)}"
        found += 1
    assert found > 50


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {word for _, words in calls("make") for word in words if "=" not in word}
    assert {"serve", "test", "docs"} <= named <= targets


def test_options_in_the_text_exist():
    known = all_options(COMMANDS) | OTHER_OPTIONS
    for script in (*ROOT.glob("training/*.py"), *ROOT.glob("lib/causal_sam/training/*.py")):
        known |= set(re.findall(r"\"(--[\w-]+)\"", script.read_text()))
    for page in PAGES:
        named = {span.split()[0] for span in spans(page) if span.startswith("--")}
        assert named <= known, f"{page.name}: {named - known}"


def test_the_configuration_is_documented_as_it_is():
    page = DOCS / "administrator" / "configuration.md"
    assert configuration_table() in page.read_text(), "put the output of configuration_table() there"
    keys = AppConf.model_fields.keys()
    for _, words in [*calls("causal-sam"), *calls("monailabel")]:
        used = {words[n + 1].partition("=")[0] for n, word in enumerate(words) if word == "--conf"}
        assert used <= keys | {"config"}
    for _, words in calls("make"):
        pairs = [word.removeprefix("CONF=").split() for word in words if word.startswith("CONF=")]
        assert {key for pair in pairs for key in pair[::2]} <= keys | {"config"}


def test_files_that_are_named_exist():
    found = 0
    for page in PAGES:
        for name in filter(FILE.fullmatch, spans(page)):
            is_there = any(any(base.glob(name.rstrip("/"))) for base in BASES) or name in FILE_NAMES
            assert is_there, f"{page.name}: {name}"
            found += 1
        scripts = {word for words in command_lines(page) for word in words if re.match(r"(training|tests)/", word)}
        assert [script for script in scripts if not (ROOT / script).exists()] == [], page.name
    assert found > 60


def test_modules_of_the_reference_exist():
    modules = re.findall(r"^::: (\S+)", (DOCS / "developer" / "reference.md").read_text(), flags=re.MULTILINE)
    assert len(modules) > 10
    assert [module for module in modules if find_spec(module) is None] == []


def test_registries_are_where_the_map_says():
    page = (DOCS / "developer" / "adding.md").read_text()
    found = 0
    for base, table in zip(("lib", "apps"), page.split("\n## In the ")[1:], strict=True):
        for what, where in re.findall(r"^\| (an? .+?) \| .*? \| (.+?) \| .*? \|$", table, flags=re.MULTILINE):
            for name, path in re.findall(r"`(\w+)` in `([\w/.]+\.py)`", where):
                source = (ROOT / base / "causal_sam" / path).read_text()
                assert re.search(rf"\b{name}\b", source), f"{what}: {name} in {path}"
                found += 1
    assert found > 12


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text())
    assert "LICENSE" in links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_figures_of_the_readme_are_those_of_the_evidence():
    table = README.read_text().partition("\n## Evidence")[2].partition("\n## ")[0]
    evidence = (DOCS / "evidence" / "README.md").read_text()
    rows = re.findall(r"^\| (?!Question|---)[^|]+ \| ([^|]+) \| `([^|]+)` \|$", table, flags=re.MULTILINE)
    assert len(rows) >= 3
    for figures, command in rows:
        assert command in evidence
        for figure in re.findall(r"\d+\.\d+", figures):
            assert figure in evidence


@pytest.mark.parametrize("page", [README, DOCS / "researcher" / "python.md"], ids=lambda page: page.name)
def test_python_examples_run(page, tmp_path, monkeypatch):
    """On a small image in the place of the demo study; those that need a server are left out."""
    image = np.full((192, 144, 48), -1000, np.int16)
    image[8:184, 8:136, 34:44] = 50
    (tmp_path / "demo_studies").mkdir()
    path = tmp_path / "demo_studies" / "ct-portal-venous.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, np.diag([-2.0, -2.0, 4.0, 1.0])), path)
    monkeypatch.chdir(tmp_path)
    examples = [code for code in blocks(page, "python") if "monailabel" not in code]
    for code in examples:
        exec(compile(code, page.name, "exec"), {})
    assert examples
    made = nibabel.load(tmp_path / "liver.nii.gz")
    assert made.shape == image.shape
    assert np.asanyarray(made.dataobj).any()
