"""The folder tells what changed, and only that."""

from __future__ import annotations

import os
from pathlib import Path

from structlog.testing import capture_logs

from gateway.rules.scripts import ScriptFolder


def names(folder: ScriptFolder) -> tuple[list[str], list[str]]:
    changed, gone = folder.look()
    return [file.name for file in changed], gone


def test_new_changed_and_removed_files_are_told_once(tmp_path: Path) -> None:
    folder = ScriptFolder(tmp_path, 10, 1000)
    assert names(folder) == ([], [])
    (tmp_path / "b.lua").write_text("1")
    (tmp_path / "a.lua").write_text("1")
    (tmp_path / "notes.txt").write_text("1")
    assert names(folder) == (["a", "b"], [])
    assert names(folder) == ([], [])
    (tmp_path / "b.lua").write_text("22")
    assert names(folder) == (["b"], [])
    (tmp_path / "a.lua").unlink()
    assert names(folder) == ([], ["a"])


def test_a_touched_file_is_no_change(tmp_path: Path) -> None:
    folder = ScriptFolder(tmp_path, 10, 1000)
    path = tmp_path / "a.lua"
    path.write_text("1")
    folder.look()
    os.utime(path, (1, 1))
    assert names(folder) == ([], [])
    folder.forget("a")
    assert names(folder) == (["a"], [])


def test_a_file_that_is_too_large_or_unreadable_says_so(tmp_path: Path) -> None:
    folder = ScriptFolder(tmp_path, 10, 10)
    (tmp_path / "large.lua").write_text("x" * 11)
    (tmp_path / "odd.lua").mkdir()
    os.mkfifo(tmp_path / "pipe.lua")
    (tmp_path / "loose.lua").symlink_to(tmp_path / "nowhere")
    problems = {file.name: file.problem for file in folder.look()[0]}
    assert "larger than 10 bytes" in problems["large"]
    assert "no regular file" in problems["odd"]
    assert "no regular file" in problems["pipe"]
    assert "cannot be read" in problems["loose"]
    (tmp_path / "large.lua").write_text("x")
    assert [(file.name, file.problem) for file in folder.look()[0] if file.name == "large"] == [("large", "")]


def test_files_over_the_bound_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = ScriptFolder(tmp_path, 2, 1000)
    for name in "abc":
        (tmp_path / f"{name}.lua").write_text(name)
    assert names(folder) == (["a", "b"], [])
    assert folder.skipped == 1


def test_a_missing_folder_is_an_empty_one(tmp_path: Path) -> None:
    assert names(ScriptFolder(tmp_path / "none", 2, 1000)) == ([], [])


def test_a_missing_directory_is_told_once_each_time_it_goes(tmp_path: Path) -> None:
    directory = tmp_path / "rules"
    folder = ScriptFolder(directory, 10, 1000)
    with capture_logs() as lines:
        for _ in range(3):
            assert names(folder) == ([], [])
        assert [(line["log_level"], line["directory"]) for line in lines] == [("warning", str(directory))]
        directory.mkdir()
        folder.look()
        assert len(lines) == 1
        directory.rmdir()
        folder.look()
        folder.look()
        assert len(lines) == 2
