"""What an operator gets wrong is answered with what to do, and a code that is not 0."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fakes.process import REPOSITORY, GatewayProcess

from gateway.config import GatewayConfig, load
from gateway.core.errors import ConfigError


def gateway(*arguments: str, home: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
    if home is not None:
        clean["GATEWAY__SERVER__DATA_DIR"] = str(home / "data")
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env=clean | environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[htpp]\nport = 1\n")
    outcome = gateway("run", "-c", str(config))
    assert outcome.returncode == 1
    assert "unknown key `htpp`; did you mean `http`?" in outcome.stderr


def numbers_without_range(kind: type[msgspec.Struct], at: str = "") -> Iterator[str]:
    """Keys of numbers that could be given any value."""
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]  # of a struct
        inner = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        for one in inner:
            if isinstance(one, msgspec.inspect.StructType):
                yield from numbers_without_range(one.cls, f"{at}{field.name}.")
            elif isinstance(one, msgspec.inspect.IntType | msgspec.inspect.FloatType) and (
                (one.ge is None and one.gt is None) or (one.le is None and one.lt is None)
            ):
                yield f"{at}{field.name}"


def test_every_number_of_the_configuration_has_a_range() -> None:
    assert list(numbers_without_range(GatewayConfig)) == []


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("http", "port", "99999"),
        ("http", "max_body_bytes", "0"),
        ("http", "idle_s", "nan"),
        ("http", "idle_s", "inf"),
        ("identity", "token_ttl_s", "-5"),
        ("identity", "token_ttl_s", "inf"),
        ("identity", "argon2_memory_kib", "1"),
        ("server", "shutdown_s", "-1"),
        ("server", "bind", '""'),
        ("backlog", "frames", "0"),
        ("pipeline", "turn_ms", "0"),
        ("commands", "most_timeout_s", "0"),
        ("products.p", "retention_days", "0"),
        ("database", "readers", "0"),
        ("journal", "max_waiting_rows", "0"),
        ("retention", "events_days", "-1"),
        ("things", "value_depth", "65"),
        ("things", "settle_s", "61"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_key(tmp_path: Path, section: str, key: str, value: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"[{section}]\n{key} = {value}\n")
    with pytest.raises(ConfigError, match=rf"`{section}\.{key}`"):
        load(config, {})


def test_a_number_of_too_many_digits_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    digits, config = "1" * 5000, tmp_path / "config.toml"
    config.write_text(f"[server]\nshutdown_s = {digits}\n")
    with pytest.raises(ConfigError, match=r"config[.]toml: .*5000 digits"):
        load(config, {})
    config.write_text("")
    with pytest.raises(ConfigError, match="shutdown_s"):
        load(config, {"GATEWAY__SERVER__SHUTDOWN_S": digits})


def test_paths_of_tls_files_start_at_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[http]\ntls_certificate = "tls/a.pem"\ntls_key = "/etc/a.key"\n'
        '[listeners.x]\ntype = "tcp"\n[listeners.x.tls]\ncertificate = "b.pem"\nkey = "b.key"\n'
    )
    loaded = load(config, {}).config
    assert loaded.http.tls_certificate == str(tmp_path / "tls/a.pem")
    assert loaded.http.tls_key == "/etc/a.key"
    assert loaded.listeners["x"]["tls"] == {"certificate": str(tmp_path / "b.pem"), "key": str(tmp_path / "b.key")}


def test_an_unknown_key_from_the_environment_is_refused_too(tmp_path: Path) -> None:
    outcome = gateway("run", home=tmp_path, GATEWAY__HTTP__PROT="1")
    assert outcome.returncode == 1
    assert "`http.prot`; did you mean `port`?" in outcome.stderr


def test_a_missing_configuration_says_how_to_name_one(tmp_path: Path) -> None:
    outcome = gateway("run", "-c", str(tmp_path / "none.toml"))
    assert outcome.returncode == 1
    assert "gateway run -c PATH" in outcome.stderr


def test_a_secret_in_the_file_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[http]\nmetrics_token = "hunter2"\n')
    outcome = gateway("run", "-c", str(config))
    assert outcome.returncode == 1
    assert "GATEWAY__HTTP__METRICS_TOKEN" in outcome.stderr
    assert "hunter2" not in outcome.stderr


@pytest.mark.parametrize("name", ["HTTP", "LISTENERS__JT808"])
def test_a_port_in_use_names_the_listener_and_the_way_out(tmp_path: Path, name: str) -> None:
    other = {"HTTP": "LISTENERS__JT808", "LISTENERS__JT808": "HTTP"}[name]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        wanted = {f"GATEWAY__{name}__PORT": port, f"GATEWAY__{other}__PORT": "0"}
        outcome = gateway("run", home=tmp_path, **wanted)
    assert outcome.returncode == 1
    assert port in outcome.stderr
    assert "in use" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_second_gateway_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data"):
        outcome = gateway("run", home=tmp_path, GATEWAY__HTTP__PORT="0", GATEWAY__LISTENERS__JT808__PORT="0")
    assert outcome.returncode == 1
    assert "another gateway already runs" in outcome.stderr


def handles_sigterm(pid: int) -> bool:
    """Whether the process has set up its own way to stop (Linux: the mask of caught signals)."""
    (mask,) = re.findall(r"^SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_gateway_told_to_stop_while_it_starts_ends_in_peace(tmp_path: Path, sign: int, *, locked: bool) -> None:
    assert gateway("db", "upgrade", home=tmp_path).returncode == 0
    database = sqlite3.connect(tmp_path / "data" / "gateway.db", isolation_level=None)
    if locked:  # the start waits for it
        database.execute("BEGIN EXCLUSIVE")
    starting = subprocess.Popen(
        [sys.executable, "-m", "gateway", "run"],
        env=os.environ
        | {
            "GATEWAY__SERVER__DATA_DIR": str(tmp_path / "data"),
            "GATEWAY__DATABASE__BUSY_TIMEOUT_S": "3",
            "GATEWAY__HTTP__PORT": "0",
            "GATEWAY__LISTENERS__JT808__PORT": "0",
        },
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while starting.poll() is None and not handles_sigterm(starting.pid):
            time.sleep(0.01)
        starting.send_signal(sign)
        _, errors = starting.communicate(timeout=30)
    finally:
        starting.kill()
        database.close()
    assert starting.returncode == 0, errors
    assert "Traceback" not in errors
    assert not locked or "stopped before it was up" in errors


def test_a_database_newer_than_the_code_is_left_alone(tmp_path: Path) -> None:
    assert gateway("db", "upgrade", home=tmp_path).returncode == 0
    with sqlite3.connect(tmp_path / "data" / "gateway.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    outcome = gateway("run", home=tmp_path)
    assert outcome.returncode == 1
    assert "9999" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_check_passes_on_the_shipped_configuration() -> None:
    outcome = gateway("check")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "ok   plugin jt808" in outcome.stdout
    assert "ok   rule overspeed" in outcome.stdout


def test_check_finds_a_broken_rule_and_a_missing_plugin(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "odd.lua").write_text("if then\n")
    config = tmp_path / "config.toml"
    config.write_text('[products.p]\nplugin = "nothing"\n[rules]\ndirectory = "rules"\n')
    outcome = gateway("check", "-c", str(config))
    assert outcome.returncode == 1
    assert "FAIL rule odd" in outcome.stdout
    assert "FAIL product p" in outcome.stdout


def test_check_finds_addresses_certificates_and_folders_that_a_start_would_miss(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[server]\nbind = "192.0.2.1"\n'
        '[http]\ntls_certificate = "no.pem"\ntls_key = "no.key"\n'
        "[products.p]\n"
        '[listeners.x]\ntype = "tcp"\nport = 0\nproduct = "p"\nbind = "no such host.invalid"\n'
        '[listeners.y]\ntype = "tcp"\nport = 0\nproduct = "p"\ntls = {certificate = "no.pem", key = "no.key"}\n'
        '[rules]\ndirectory = "nowhere"\n'
    )
    outcome = gateway("check", "-c", str(config))
    assert outcome.returncode == 1
    failed = [line.removeprefix("FAIL ") for line in outcome.stdout.splitlines() if line.startswith("FAIL ")]
    found = [line.partition(":")[0] for line in failed]
    assert found == [
        "server bind 192.0.2.1",
        "http",
        "listener x bind no such host.invalid",
        "listener y",
        "rules directory",
    ]
    assert "Traceback" not in outcome.stderr


def test_the_first_password_is_shown_once_and_never_logged(tmp_path: Path) -> None:
    running = GatewayProcess(tmp_path / "data", GATEWAY_ADMIN_PASSWORD="")
    with running:
        pass
    text = running.log.read_text()
    (password,) = re.findall(r"has the password  (\S+)", text)
    assert text.count(password) == 1
    with running:
        pass
    assert running.log.read_text().count(password) == 1


def test_the_usual_reasons_of_shedding_are_shown_before_anything_was_shed(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as running:
        metrics = running.metrics()
    shed = {name: value for name, value in metrics.items() if name.startswith("gateway_messages_shed_total")}
    assert set(shed.values()) == {0}
    assert {f'gateway_messages_shed_total{{reason="{reason}"}}' for reason in ("checksum", "storage_failed")} <= set(
        shed
    )


def test_users_are_made_and_listed_from_the_command_line(tmp_path: Path) -> None:
    made = gateway("user", "add", "alice", home=tmp_path, GATEWAY_USER_PASSWORD="correct horse battery")
    assert made.returncode == 0, made.stderr
    twice = gateway("user", "add", "alice", home=tmp_path, GATEWAY_USER_PASSWORD="correct horse battery")
    assert twice.returncode == 1
    assert "taken" in twice.stderr
    assert "alice" in gateway("user", "list", home=tmp_path).stdout


def test_decode_prints_json_and_refuses_what_is_not_hexadecimal() -> None:
    frame = "7e000200000130410000000001737e"
    outcome = gateway("plugin", "decode", "jt808", frame)
    assert outcome.returncode == 0
    assert '"ok": true' in outcome.stdout
    assert gateway("plugin", "decode", "jt808", "xyz").returncode == 2


@pytest.mark.parametrize(
    "command",
    [
        ["run"], ["check"], ["plugin", "build"], ["plugin", "list"], ["plugin", "test"], ["plugin", "decode"],
        ["user", "add"], ["user", "passwd"], ["user", "list"], ["db", "upgrade"], ["simulate", "jt808"],
    ],
)  # fmt: skip
def test_every_command_explains_itself_with_an_example(command: list[str]) -> None:
    outcome = gateway(*command, "--help")
    assert outcome.returncode == 0
    assert f"gateway {' '.join(command)}" in outcome.stdout.partition("Example")[2]


def test_a_simulation_needs_no_configuration_when_told_the_port(tmp_path: Path) -> None:
    absent = str(tmp_path / "none.toml")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    outcome = gateway("simulate", "jt808", "--port", port, "--devices", "1", "--seconds", "1", "-c", absent)
    assert outcome.returncode == 1
    assert "none.toml" not in outcome.stderr
    outcome = gateway("simulate", "jt808", "-c", absent)
    assert "none.toml" in outcome.stderr


def test_a_simulation_without_a_gateway_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    outcome = gateway("simulate", "jt808", "--port", port, "--devices", "1", "--seconds", "1")
    assert outcome.returncode == 1
    assert "Traceback" not in outcome.stderr
