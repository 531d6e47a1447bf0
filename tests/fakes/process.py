"""A whole gateway in a process of its own, on free ports, as a user would start it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED_CONFIG = REPOSITORY / "config.toml"
PASSWORD = "a-long-test-password"


class GatewayProcess:
    """Start with `with`; `kill` is kill -9 of every process it started."""

    def __init__(self, data_dir: Path, config: Path | None = None, **environment: str) -> None:
        self.data_dir = data_dir
        self.config = config or SHIPPED_CONFIG
        self.environment = environment
        self.ports: dict[str, dict[str, Any]] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.token = ""
        self.log = data_dir.parent / f"{data_dir.name}.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        ready = self.data_dir.parent / f"{self.data_dir.name}.ready.json"
        ready.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY__")}
        environment |= {
            "GATEWAY_ADMIN_PASSWORD": PASSWORD,
            "GATEWAY__SERVER__DATA_DIR": str(self.data_dir),
            "GATEWAY__HTTP__PORT": "0",
            **self.environment,
        }
        if self.config == SHIPPED_CONFIG:
            environment.setdefault("GATEWAY__LISTENERS__JT808__PORT", "0")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", "-c", str(self.config), "--ready-file", str(ready)],
                env=environment,
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the gateway did not start:\n{self.log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.02)
        self.ports = json.loads(ready.read_text())

    def stop(self) -> int:
        """Ask it to end, as a service manager does; returns the exit code."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            raise AssertionError("the gateway did not stop within 30 s") from None

    def kill(self) -> None:
        """End the whole process group at once: main process and workers."""
        if self.process is None:
            return
        process, self.process = self.process, None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        self.token = ""

    @property
    def url(self) -> str:
        http = self.ports["http"]
        return f"http://{http['host']}:{http['port']}"

    def login(self) -> None:
        answer = self.call("POST", "/api/v1/auth/login", {"username": "admin", "password": PASSWORD})
        self.token = answer["data"]["token"]

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One API request; returns the envelope with the status as `http`."""
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - always our own http URL
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, data, timeout=30) as answer:  # noqa: S310 - as above
                return {"http": answer.status, **json.loads(answer.read() or b"{}")}
        except urllib.error.HTTPError as refusal:
            with refusal:
                return {"http": refusal.code, **json.loads(refusal.read() or b"{}")}

    def get(self, path: str) -> Any:
        """The `data` of a successful GET."""
        if not self.token:
            self.login()
        answer = self.call("GET", path)
        assert answer["http"] == 200, answer
        return answer.get("data", answer)

    def items(self, path: str) -> list[dict[str, Any]]:
        """Every item of a paged list."""
        found: list[dict[str, Any]] = []
        page = 1
        while True:
            mark = "&" if "?" in path else "?"
            data = self.get(f"{path}{mark}page={page}&limit=1000")
            found += data["items"]
            if len(found) >= data["total"] or not data["items"]:
                assert len(found) == data["total"]
                return found
            page += 1

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name with labels."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=30) as answer:  # noqa: S310 - our own URL
            lines = answer.read().decode().splitlines()
        return {
            name: float(value)
            for name, value in (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        }
