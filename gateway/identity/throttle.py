"""The login throttle: failures by user name and by address cost an exponential wait. Knows no password."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from gateway.core.clock import Clock
from gateway.core.errors import Throttled
from gateway.identity.config import IdentityConfig
from gateway.identity.model import name_key


@dataclass(slots=True)
class _Record:
    """Failures of one name or address."""

    failures: int = 0
    closed_until_s: float = 0.0
    touched_s: float = 0.0


class LoginThrottle:
    """Admits login attempts.

    An attempt counts as failed until `succeeded` says otherwise, so that parallel ones add up.
    """

    def __init__(self, config: IdentityConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self.refused = 0

    def __len__(self) -> int:
        """Names and addresses remembered."""
        return len(self._records)

    def attempt(self, username: str, address: str) -> None:
        """Count an attempt; raises Throttled (and remembers nothing of it) while either key has to wait.

        What is refused leaves no trace: else names made up while waiting would push out the very records that wait.
        """
        now_s = self._clock.monotonic_s()
        keys = _keys(username, address)
        known = [record for key in keys if (record := self._known(key, now_s)) is not None]
        wait_s = max((record.closed_until_s for record in known), default=now_s) - now_s
        if wait_s > 0:
            self.refused += 1
            raise Throttled(wait_s)
        for key in keys:
            record = self._known(key, now_s) or _Record()
            record.failures += 1
            record.closed_until_s = now_s + self._wait_s(record.failures)
            record.touched_s = now_s
            self._remember(key, record)

    def succeeded(self, username: str, address: str) -> None:
        """Forget the name's failures and take this attempt back from the address.

        The address keeps its earlier failures: one valid account must not buy guesses at others.
        """
        of_name, of_address = _keys(username, address)
        self._records.pop(of_name, None)
        record = self._records.get(of_address)
        if record is not None and record.failures > 0:
            record.failures -= 1
            record.closed_until_s = 0.0

    def _known(self, key: str, now_s: float) -> _Record | None:
        record = self._records.get(key)
        if record is None or now_s - max(record.touched_s, record.closed_until_s) > self._config.forget_after_s:
            return None
        return record

    def _remember(self, key: str, record: _Record) -> None:
        self._records[key] = record
        self._records.move_to_end(key)
        while len(self._records) > self._config.max_throttled:
            self._records.popitem(last=False)

    def _wait_s(self, failures: int) -> float:
        over = failures - self._config.free_attempts - 1
        if over < 0:
            return 0.0
        return float(min(self._config.most_wait_s, self._config.first_wait_s * 2 ** min(over, 32)))


def _keys(username: str, address: str) -> tuple[str, str]:
    return f"name {name_key(username)}", f"address {_network(address)}"


def _network(address: str) -> str:
    """An IPv6 site is given a /64 and can use any address of it: it counts as one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
