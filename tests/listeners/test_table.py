from dataclasses import dataclass, field

from fakes.traffic import FakeClock
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.listeners.limits import TcpLimits
from gateway.listeners.table import ConnectionTable

LIMITS = TcpLimits(
    max_connections=6,
    max_connections_per_peer=3,
    idle_timeout_s=100.0,
    first_frame_timeout_s=20.0,
    frame_timeout_s=10.0,
)


@dataclass(eq=False)
class SomePeer:
    table: ConnectionTable
    host: str = "h"
    heard_at: float = 0.0
    has_spoken: bool = False
    held: bool = False
    expired: list[str] = field(default_factory=list)

    def expire(self, reason: str) -> None:
        self.expired.append(reason)
        self.close(reason)

    def close(self, reason: str) -> None:
        self.table.settle(self)
        self.table.forget(self)


def admitted(table: ConnectionTable, host: str = "h") -> SomePeer:
    peer = SomePeer(table, host)
    assert table.admit(peer) is None
    peer.heard_at = table.now
    table.await_first_frame(peer)
    return peer


def test_the_deadline_of_an_unfinished_frame_is_not_moved_by_more_of_the_same_frame() -> None:
    clock = FakeClock()
    table = ConnectionTable(LIMITS, clock)
    peer = admitted(table)
    peer.has_spoken = True
    table.heard(peer, whole=True, pending=True)
    for _ in range(10):
        assert peer.expired == []
        clock.advance(1)
        table.sweep()
        table.heard(peer, whole=False, pending=True)
    assert peer.expired == ["unfinished_frame"]


def test_a_first_frame_in_pieces_has_the_deadline_of_the_first_frame() -> None:
    clock = FakeClock()
    table = ConnectionTable(LIMITS, clock)
    peer = admitted(table)
    for _ in range(20):
        assert peer.expired == []
        clock.advance(1)
        table.sweep()
        table.heard(peer, whole=False, pending=True)
    assert peer.expired == ["no_first_frame"]


def test_a_deadline_stands_still_while_the_peer_is_held() -> None:
    clock = FakeClock()
    table = ConnectionTable(LIMITS, clock)
    peer = admitted(table)
    peer.held = True
    for _ in range(50):
        clock.advance(5)
        table.sweep()
    peer.held = False
    peer.heard_at = table.now
    clock.advance(19)
    table.sweep()
    assert peer.expired == []
    clock.advance(1)
    table.sweep()
    assert peer.expired == ["no_first_frame"]


def test_an_idle_peer_is_found_within_a_sixteenth_of_the_timeout() -> None:
    clock = FakeClock()
    table = ConnectionTable(LIMITS, clock)
    peer = admitted(table)
    table.heard(peer, whole=True, pending=False)
    while not peer.expired:
        clock.advance(1)
        table.sweep()
    assert peer.expired == ["idle"]
    assert 100 <= clock.monotonic_s() <= 100 + 100 / 16 + 1


class Crowd(RuleBasedStateMachine):
    """Peers come, talk and go in any order; the table's counts never drift."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.table = ConnectionTable(LIMITS, self.clock)
        self.peers: list[SomePeer] = []

    @rule(host=st.sampled_from(["a", "b", "c"]))
    def come(self, host: str) -> None:
        live = [peer for peer in self.peers if peer in self.table.live]
        refusal = self.table.admit(peer := SomePeer(self.table, host))
        if len(live) >= 6:
            assert refusal == "max_connections"
        elif sum(other.host == host for other in live) >= 3:
            assert refusal == "max_connections_per_peer"
        else:
            assert refusal is None
            peer.heard_at = self.table.now
            self.table.await_first_frame(peer)
        self.peers.append(peer)

    @rule(at=st.integers(0, 20))
    def go(self, at: int) -> None:
        if at < len(self.peers):
            self.table.forget(self.peers[at])

    @rule(at=st.integers(0, 20), whole=st.booleans(), pending=st.booleans())
    def talk(self, at: int, whole: bool, pending: bool) -> None:
        if at < len(self.peers) and self.peers[at] in self.table.live:
            self.table.heard(self.peers[at], whole=whole, pending=pending)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.table.sweep()

    @invariant()
    def the_counts_are_those_of_the_live_peers(self) -> None:
        hosts = [peer.host for peer in self.table.live]
        assert self.table._per_host == {host: hosts.count(host) for host in set(hosts)}
        assert set(self.table._deadlines) <= self.table.live
        assert self.table.used.is_set() == bool(hosts)
        assert self.table.empty.is_set() == (not hosts)


TestCrowd = Crowd.TestCase
