"""Shows the doctests in docstrings as code: without this, Markdown takes their ``>>>`` for quotations."""

from __future__ import annotations

from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor


class _Doctests(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        result, inside = [], False
        for line in [*lines, ""]:
            if not inside and line.startswith(">>> "):
                result.append("```pycon")
                inside = True
            elif inside and not line.strip():
                result.append("```")
                inside = False
            result.append(line)
        return result


class _DoctestExtension(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.preprocessors.register(_Doctests(md), "doctests", 50)  # before the fences are read


def on_config(config: Any) -> None:
    """Add the extension to those of all pages."""
    config.markdown_extensions.append(_DoctestExtension())
