"""The rules in a protocol, their versions, and the file that people write."""

from __future__ import annotations

from pathlib import Path

import pytest

from causal_sam.errors import InputError, NotFoundError
from causal_sam.protocol.rules import MAX_BYTES, MAX_RULES, Rule, append_rules, parse_protocol, read_protocol

TEXT = """# Liver study

Masks are for volumetry. - This is no item.

* Liver without **gallbladder**.
  It is cut off
  at the neck.

<!-- - not a rule
- nor this -->
1. Fill `vessels` of the liver up to 3 mm

```
- code
```
- [ ] smooth_names stay
| - | table |
- liver WITHOUT gallbladder. It is  cut off at the neck
"""


def test_items_of_lists_are_rules_and_all_else_explains_them() -> None:
    protocol = parse_protocol(TEXT)
    assert [(rule.line, rule.text) for rule in protocol.rules] == [
        (5, "Liver without gallbladder. It is cut off at the neck."),
        (11, "Fill vessels of the liver up to 3 mm"),
        (16, "smooth_names stay"),
    ]
    assert parse_protocol("").rules == ()


def test_the_version_of_a_rule_depends_on_its_words_alone() -> None:
    rule = Rule("Smooth the liver.", 3)
    assert Rule("smooth  the LIVER", 9).identity == rule.identity
    assert Rule("Smooth the spleen.", 3).identity != rule.identity
    protocol = parse_protocol("- a\n- b")
    assert protocol.version != parse_protocol("- b\n- a").version
    assert protocol.version == parse_protocol("# With a title\n- A.\n- b").version
    assert protocol.rule(Rule("a", 0).identity).line == 1
    with pytest.raises(NotFoundError, match="no such rule any more"):
        protocol.rule(rule.identity)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "# Protocol\n\n- Smooth the liver.\n"),
        ("# Ours\r\n\r\n- one\r\n", "# Ours\r\n\r\n- one\r\n- Smooth the liver.\n"),
        ("# Ours\n- one\n\nWhy.", "# Ours\n- one\n\nWhy.\n\n- Smooth the liver.\n"),
        ("- one\n\n", "- one\n\n\n- Smooth the liver.\n"),
    ],
)
def test_new_rules_are_added_at_the_end_of_what_people_wrote(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "protocol.md"
    if before:
        path.write_bytes(before.encode())
    append_rules(path, ["Smooth the liver."])
    assert path.read_bytes().decode() == after
    assert read_protocol(path).rules[-1].text == "Smooth the liver."


def test_a_file_that_cannot_be_used_is_said_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "protocol.md"
    assert read_protocol(path).rules == ()
    path.write_bytes(b"- liver \xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_protocol(path)
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="larger than"):
        read_protocol(path)
    path.write_text("\n".join(f"- rule {n}" for n in range(MAX_RULES + 1)))
    with pytest.raises(InputError, match=f"{MAX_RULES} is the most"):
        read_protocol(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_protocol(tmp_path / "protocol.md" / "inside")
    with pytest.raises(InputError, match="cannot be written"):
        append_rules(tmp_path / "nowhere" / "protocol.md", ["Smooth the liver."])
