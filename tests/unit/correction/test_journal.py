"""The journal keeps every entry, whole, whatever happens to those who write it."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from causal_sam.correction.journal import NAME, Journal, JournalError


def test_entries_come_back_in_order_and_survive_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert list(journal.entries()) == []
    for number in range(3):
        journal.append({"number": number, "note": "Milz läuft in den Magen\nzweite Zeile"})
    again = list(Journal(tmp_path / "journal").entries())
    assert [entry["number"] for entry in again] == [0, 1, 2]
    assert again[0]["note"] == "Milz läuft in den Magen\nzweite Zeile"
    assert (tmp_path / "journal" / NAME).stat().st_mode & 0o077 == 0  # notes may name patients


def test_entries_that_belong_together_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append({"number": 0}, {"number": 1})
    journal.append()
    with pytest.raises(TypeError):
        journal.append({"number": 2}, {"number": object()})
    assert [entry["number"] for entry in journal.entries()] == [0, 1]


def test_files_are_rotated_and_none_is_lost(tmp_path: Path) -> None:
    journal = Journal(tmp_path, largest=200)
    for number in range(60):
        journal.append({"number": number, "note": "x" * 40})
    assert len(list(tmp_path.glob("notes.*.jsonl"))) >= 11  # their numbers are not in the order of their names
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 300
    assert [entry["number"] for entry in journal.entries()] == list(range(60))


def test_a_line_cut_off_by_a_crash_spoils_no_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append({"number": 0})
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"number": 1, "no')
    journal.append({"number": 2})
    assert [entry["number"] for entry in journal.entries()] == [0, 2]


def test_threads_and_processes_share_a_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from causal_sam.correction.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for number in range(50): journal.append({'number': number, 'by': sys.argv[2], 'note': 'x' * 5000})"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(by)]) for by in range(2)]
    journal = Journal(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: journal.append({"number": number, "by": "me", "note": "y" * 5000}), range(50)))
    assert [other.wait() for other in others] == [0, 0]
    entries = list(journal.entries())
    assert len(entries) == 150
    assert {(entry["by"], entry["number"]) for entry in entries} == {
        (by, number) for by in ("0", "1", "me") for number in range(50)
    }


WRITER = """
import sys
from pathlib import Path
from causal_sam.json_lines import JsonLines
lines = JsonLines(Path(sys.argv[1]), "notes", 500)
for number in range(int(sys.argv[3])):
    lines.append({"by": sys.argv[2], "number": number, "note": "x" * 60})
    print(number, flush=True)
"""


def test_nothing_is_lost_while_four_processes_write_and_rotate_and_some_are_killed(tmp_path: Path) -> None:
    folder, answered = tmp_path / "journal", {}

    def start(by: str, count: int) -> subprocess.Popen:
        command = [sys.executable, "-c", WRITER, str(folder), by, str(count)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    writers = {str(n): start(str(n), 10_000 if n % 2 else 150) for n in range(4)}
    rng = random.Random(0)
    for by in ("1", "3", "5", "7"):  # those that would write for long are killed in the midst of it
        if by not in writers:
            writers[by] = start(by, 10_000)
        for _ in range(rng.randrange(20, 60)):
            answered.setdefault(by, []).append(int(writers[by].stdout.readline()))
        writers[by].kill()
    for by, writer in writers.items():
        answered.setdefault(by, []).extend(int(line) for line in writer.stdout.read().split())
        assert writer.wait() in (0, -signal.SIGKILL)
    entries = [(entry["by"], entry["number"]) for entry in Journal(folder).entries()]
    assert len(entries) == len(set(entries))
    assert {(by, number) for by, numbers in answered.items() for number in numbers} <= set(entries)
    assert {by: max(numbers) for by, numbers in answered.items() if by in "02"} == {"0": 149, "2": 149}
    for by in writers:
        mine = [number for who, number in entries if who == by]
        assert mine == sorted(mine)  # the files are in order
    assert len(list(folder.glob("notes.*.jsonl"))) > 50


def test_an_entry_that_is_read_while_files_are_put_aside_is_read_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path, largest=300)
    for number in range(20):
        journal.append({"number": number})
    entries = journal.entries()
    seen = [next(entries)["number"]]
    for number in range(20, 60):
        journal.append({"number": number})
    seen += [entry["number"] for entry in entries]
    assert seen[:20] == list(range(20))
    assert seen == sorted(set(seen))


def test_the_folder_may_be_removed_between_two_entries_or_be_read_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append({"number": 0})
    shutil.rmtree(tmp_path / "journal")
    assert list(journal.entries()) == []
    journal.append({"number": 1})
    (tmp_path / "journal" / "notes.lock").unlink()  # as a journal of an earlier version has none
    assert [entry["number"] for entry in journal.entries()] == [1]
    assert not (tmp_path / "journal" / "notes.lock").exists()


def test_a_full_disk_is_said_and_leaves_no_half_line(tmp_path: Path) -> None:
    Journal(tmp_path).append({"number": 0})
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from causal_sam.correction.journal import Journal, JournalError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: Journal(Path(sys.argv[1])).append({'note': 'x' * 5000})\n"
        "except JournalError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "cannot be written" in said.stdout
    assert (tmp_path / NAME).read_text() == json.dumps({"number": 0}) + "\n"


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="make room there, or make it writable"):
        Journal(tmp_path / "file").append({})
