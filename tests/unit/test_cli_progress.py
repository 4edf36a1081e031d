"""Progress is a bar on a terminal, and lines elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from causal_sam.cli.progress import case_progress


def test_lines_come_with_each_case_and_every_ten_seconds():
    now, out = [0.0], io.StringIO()
    with case_progress(3, Console(file=out, width=40), lambda: now[0]) as progress:
        for seconds, done, text in (
            (1, 0, "reading"),
            (4, 0.1, "liver · click 1/5"),
            (41, 0.2, "liver · click 2/5"),
            (45, 0.3, "a structure with a name that is longer than the line · click 3/5"),
            (46, 1, "reading"),
            (59, 1.5, "a structure with a name that is longer than the line · click 3/5"),
            (3700, 3, "reading"),
        ):
            now[0] = seconds
            progress(done, text)
    assert out.getvalue().splitlines() == [
        "case 1/3 · reading · 00:01",
        "case 1/3 · liver · click 2/5 · 00:41",
        "case 2/3 · reading · 00:46",
        "case 2/3 · a structure with a name that is longer than the line · click 3/5 · 00:59",
        "case 3/3 · reading · 61:40",
    ]


def test_terminal_shows_a_bar_and_no_lines():
    out = io.StringIO()
    with case_progress(2, Console(file=out, force_terminal=True, width=100)) as progress:
        progress(1, "liver · click 2/5")
    assert "case 2/2" not in out.getvalue()
    assert "liver · click 2/5" in out.getvalue()
