from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.clock import SystemClock
from gateway.core.errors import ConfigError
from gateway.core.flow import Event, Message, Quality
from gateway.sinks.jsonl import JsonLinesConfig, JsonLinesSink


def sink(home: Path, **config: Any) -> JsonLinesSink:
    return JsonLinesSink(
        "archive", JsonLinesConfig(type="jsonl", path="out/stored.jsonl", **config), home=home, clock=SystemClock()
    )


def message(seq: int, text: str = "") -> Message:
    return Message("default", "meter", "d1", 1, 1000, 2000, {"text": text}, {"text": Quality.BAD_TYPE}, seq)


def lines(path: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


async def test_messages_and_events_become_one_line_each(tmp_path: Path) -> None:
    archive = sink(tmp_path, sync=True)
    await archive.open()
    await archive.write([message(1, "a\nb")], [])
    await archive.write([], [Event("default", "alarm.raised", 3000, "d1", {"rule": "hot"}, 2)])
    await archive.close()
    path = tmp_path / "out" / "stored.jsonl"
    assert lines(path) == [
        {
            "type": "message",
            "seq": 1,
            "tenant": "default",
            "product": "meter",
            "device": "d1",
            "observed_at": "1970-01-01T00:00:01.000Z",
            "received_at": "1970-01-01T00:00:02.000Z",
            "values": {"text": "a\nb"},
            "quality": {"text": "bad_type"},
        },
        {
            "type": "alarm.raised",
            "seq": 2,
            "tenant": "default",
            "device": "d1",
            "at": "1970-01-01T00:00:03.000Z",
            "data": {"rule": "hot"},
        },
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_full_file_is_turned_over_and_the_oldest_goes(tmp_path: Path) -> None:
    archive = sink(tmp_path, max_bytes=4096, keep=2)
    await archive.open()
    for seq in range(40):
        await archive.write([message(seq, "x" * 1000)], [])
    await archive.close()
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == ["stored.jsonl", "stored.jsonl.1", "stored.jsonl.2"]
    assert all(path.stat().st_size <= 4096 for path in folder.iterdir())
    kept = [line["seq"] for name in (".2", ".1", "") for line in lines(folder / f"stored.jsonl{name}")]
    assert kept == list(range(kept[0], 40))


async def test_a_line_that_a_crash_left_half_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "out" / "stored.jsonl"
    path.parent.mkdir()
    path.write_bytes(b'{"type":"mess')
    archive = sink(tmp_path)
    await archive.open()
    await archive.write([message(7)], [])
    await archive.close()
    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"type":"mess'
    assert msgspec.json.decode(whole)["seq"] == 7


async def test_a_full_disk_takes_back_what_was_half_written(tmp_path: Path) -> None:
    archive = sink(tmp_path)
    await archive.open()
    await archive.write([message(1)], [])
    path = tmp_path / "out" / "stored.jsonl"
    whole = path.read_bytes()
    file = archive._file
    assert file is not None

    class FullDisk:
        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

        def write(self, data: bytes) -> int:
            if file.tell() > len(whole):
                raise OSError(28, "No space left on device")
            return file.write(bytes(data)[:10])

    archive._file = FullDisk()  # type: ignore[assignment]  # fails as a full disk does: after some bytes
    for _ in range(3):  # the fleet asks again and again
        with pytest.raises(OSError, match="No space"):
            await archive.write([message(2)], [])
        assert path.read_bytes() == whole
    archive._file = file
    await archive.write([message(2)], [])
    await archive.close()
    assert [line["seq"] for line in lines(path)] == [1, 2]


async def test_where_even_that_fails_the_half_line_is_ended_and_nothing_is_glued(tmp_path: Path) -> None:
    archive = sink(tmp_path)
    await archive.open()
    file = archive._file
    assert file is not None

    class BrokenDisk:
        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

        def write(self, data: bytes) -> int:
            if file.tell():
                raise OSError(5, "Input/output error")
            return file.write(bytes(data)[:10])

        def truncate(self, _size: int) -> int:
            raise OSError(5, "Input/output error")

    archive._file = BrokenDisk()  # type: ignore[assignment]  # fails as a broken disk does
    with pytest.raises(OSError, match="Input/output"):
        await archive.write([message(1)], [])
    await archive.write([message(1)], [])
    await archive.close()
    torn, whole = (tmp_path / "out" / "stored.jsonl").read_bytes().splitlines()
    assert len(torn) == 10
    assert msgspec.json.decode(whole)["seq"] == 1


async def test_a_place_that_cannot_be_written_is_a_configuration_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match=r"sinks\.archive: cannot write .*stored\.jsonl"):
        await sink(tmp_path).open()
