"""The way of a frame: what is acknowledged is stored, what is accepted is counted, order is kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from fakes.traffic import FakeClock, FakeConnection, FakeCredentials, FakeDirectory, HeldJournal, LetterCodec
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bus import Bus, Overflow
from gateway.core.errors import NotReady
from gateway.listeners.backlog import Backlog, BacklogConfig
from gateway.pipeline import Pipeline, PipelineConfig
from gateway.things.admission import Admission
from gateway.things.model import Product
from gateway.things.sessions import SessionRegistry
from gateway.wasm.codec import Codec


@dataclass
class Stage:
    """A pipeline with everything around it faked."""

    config: PipelineConfig = field(default_factory=PipelineConfig)
    bounds: BacklogConfig = field(default_factory=BacklogConfig)
    product: Product = field(
        default_factory=lambda: Product(tenant_id="default", id="p", plugin_id="letters", registration="auto")
    )

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.codec = LetterCodec()
        self.journal = HeldJournal()
        self.directory = FakeDirectory(self.product)
        self.sessions = SessionRegistry(self.clock)
        self.bus = Bus()
        self.messages = self.bus.messages.subscribe("test", 10_000, Overflow.DROP_OLDEST)
        self.events = self.bus.events.subscribe("test", 10_000, Overflow.DROP_OLDEST)
        admission = Admission(self.directory, self.sessions, FakeCredentials(), self.clock)
        self.pipeline = Pipeline(
            self.config,
            Backlog(self.bounds),
            self.directory,
            self.sessions,
            admission,
            self._codec,
            self.journal,
            self.bus,
            self.clock,
        )
        self.plugin_missing = False

    def _codec(self, _product: Product) -> Codec:
        if self.plugin_missing:
            raise NotReady("plugin letters is not loaded")
        return self.codec

    def connect(self, product_id: str = "p") -> FakeConnection:
        connection = FakeConnection(product_id)
        self.pipeline.opened(connection)
        return connection

    async def send(self, connection: FakeConnection, *frames: str) -> None:
        self.pipeline.received(connection, [frame.encode() for frame in frames])
        await turns()

    def event_types(self) -> list[str]:
        return [event.type for event in self.events.take_all(1000)]

    def ledger_holds(self) -> bool:
        pipeline = self.pipeline
        return pipeline.accepted == pipeline.stored + pipeline.shed.total() + pipeline.in_flight


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def stage() -> Stage:
    return Stage()


async def test_a_report_is_acknowledged_only_after_its_commit(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "r d1 5")
    assert connection.sent == []
    assert stage.ledger_holds()
    stage.journal.commit_all()
    assert connection.sent == [b"ack 5;"]
    assert stage.pipeline.stored == 1
    assert stage.ledger_holds()


async def test_a_refused_commit_sends_no_acknowledgement_and_is_counted(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "r d1 5")
    stage.journal.fail_all()
    assert connection.sent == []
    assert stage.pipeline.shed["storage_failed"] == 1
    assert stage.ledger_holds()


async def test_a_device_whose_registration_was_refused_registers_again_with_its_next_frame(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "r d1 5")
    stage.journal.fail_all()
    assert stage.directory.forgotten == ["d1"]
    await stage.send(connection, "r d1 6")
    commit = stage.journal.pending[0][0]
    assert [device.device_id for device in commit.devices] == ["d1"]
    stage.journal.commit_all()
    assert connection.sent == [b"ack 6;"]
    assert stage.sessions.of(stage.directory.devices["default", "d1"]) is not None


async def test_what_a_failed_commit_shed_is_booked_with_the_next_one(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "r d1 5", "r d1 6")
    stage.journal.fail_all()
    await stage.send(connection, "r d1 7")
    assert stage.journal.pending[0][0].ledger == {"stored": 1, "shed:storage_failed": 2}
    stage.journal.commit_all()
    assert stage.pipeline.shed["storage_failed"] == 2
    assert stage.ledger_holds()


async def test_acknowledgements_of_one_batch_leave_in_one_write_and_in_order(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "r d1 1", "r d1 2", "h d1 3")
    stage.journal.commit_all()
    assert connection.sent == [b"ack 1;ack 2;ack 3;"]


async def test_frames_of_many_connections_that_arrive_together_are_one_batch(stage: Stage) -> None:
    for number in range(5):
        connection = stage.connect()
        stage.pipeline.received(connection, [f"r d{number} 1".encode()])
    await turns()
    assert stage.codec.batches == [5]
    assert len(stage.journal.pending) == 1


async def test_an_unknown_device_of_a_preregistered_product_is_shed_and_its_neighbour_goes_on(stage: Stage) -> None:
    strict = Product(tenant_id="default", id="strict", plugin_id="letters")
    stage.directory.products["default", "strict"] = strict
    stage.directory.add("known", "strict")
    connection = stage.connect("strict")
    await stage.send(connection, "r stranger 1", "r known 2")
    stage.journal.commit_all()
    assert stage.pipeline.shed["unregistered"] == 1
    assert connection.sent == [b"ack 2;"]
    assert ("default", "stranger") not in stage.directory.devices


async def test_a_device_of_another_product_is_refused(stage: Stage) -> None:
    stage.directory.add("d1", "other")
    connection = stage.connect()
    await stage.send(connection, "r d1 1")
    stage.journal.commit_all()
    assert stage.pipeline.shed["wrong_product"] == 1


async def test_an_id_that_cannot_be_one_is_shed(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "r muchtoolong 1")
    stage.journal.commit_all()
    assert stage.pipeline.shed["not_admitted"] == 1


async def test_registration_tells_the_device_its_code_and_stores_only_the_digest(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "g d1 1")
    commit = stage.journal.pending[0][0]
    assert [(entry.digest, entry.source) for entry in commit.credentials] == [("#code-d1", "issued")]
    stage.journal.commit_all()
    assert connection.sent == [b"ack 1 accepted=True credential=code-d1;"]


async def test_a_code_whose_commit_was_refused_is_not_remembered(stage: Stage) -> None:
    device = stage.directory.add("d1")
    connection = stage.connect()
    await stage.send(connection, "a d1 first")
    stage.journal.fail_all()
    assert device.credential_digest is None
    await stage.send(connection, "a d1 second")
    stage.journal.commit_all()
    assert device.credential_digest == "#second"


async def test_a_terminal_may_authenticate_and_report_without_waiting(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "g d1 1", "a d1 code-d1", "r d1 5")
    stage.journal.commit_all()
    assert b"accepted=True credential=;" in connection.sent[0]
    assert connection.sent[0].endswith(b"ack 5;")


async def test_after_a_wrong_code_reports_are_shed_until_the_right_one(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "g d1 1", "a d1 wrong", "r d1 5")
    stage.journal.commit_all()
    assert b"accepted=False" in connection.sent[0]
    assert stage.pipeline.shed["unauthenticated"] == 1
    await stage.send(connection, "a d1 code-d1", "r d1 6")
    stage.journal.commit_all()
    assert connection.sent[1].endswith(b"ack 6;")


async def test_a_product_that_requires_authentication_takes_no_report_before_it(stage: Stage) -> None:
    strict = Product(tenant_id="default", id="p", plugin_id="letters", registration="auto", authentication="required")
    stage.directory.products["default", "p"] = strict
    connection = stage.connect()
    await stage.send(connection, "r d1 5", "g d1 1", "a d1 code-d1", "r d1 6")
    stage.journal.commit_all()
    assert stage.pipeline.shed["unauthenticated"] == 1
    assert connection.sent[0].endswith(b"ack 6;")


async def test_a_disabled_device_is_shed_and_its_connection_closed(stage: Stage) -> None:
    stage.directory.add("d1", enabled=False)
    connection = stage.connect()
    await stage.send(connection, "r d1 5")
    stage.journal.commit_all()
    assert stage.pipeline.shed["device_disabled"] == 1
    assert connection.close_reasons == ["device_disabled"]
    assert "device.online" not in stage.event_types()


async def test_the_same_device_on_a_second_connection_closes_the_first_without_going_offline(stage: Stage) -> None:
    first, second = stage.connect(), stage.connect()
    await stage.send(first, "r d1 1")
    stage.journal.commit_all()
    await stage.send(second, "g d1 2", "a d1 code-d1")
    stage.journal.commit_all()
    assert first.close_reasons == ["replaced"]
    stage.pipeline.closed(first, "replaced")
    stage.journal.commit_all()
    assert stage.event_types() == ["device.registered", "device.online"]
    stage.pipeline.closed(second, "peer_closed")
    stage.journal.commit_all()
    assert stage.event_types() == ["device.offline"]


async def test_an_unproven_connection_does_not_take_a_device_from_a_proven_one(stage: Stage) -> None:
    first, second = stage.connect(), stage.connect()
    await stage.send(first, "g d1 1", "a d1 code-d1")
    stage.journal.commit_all()
    await stage.send(second, "r d1 9")
    stage.journal.commit_all()
    assert first.close_reasons == []
    session = stage.sessions.of(stage.directory.devices["default", "d1"])
    assert session is not None
    assert session.line is first


async def test_one_connection_may_carry_several_devices(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "r d1 1", "r d2 2", "r d1 3")
    stage.journal.commit_all()
    assert [message.device_id for message in stage.messages.take_all(10)] == ["d1", "d2", "d1"]
    stage.pipeline.closed(connection, "peer_closed")
    stage.journal.commit_all()
    assert stage.event_types().count("device.offline") == 2


async def test_a_wrong_checksum_is_a_dead_letter_and_the_neighbours_are_stored(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "r d1 1", "c d1", "r d1 2")
    commit = stage.journal.pending[0][0]
    assert [(letter.reason, letter.frame, letter.device_id) for letter in commit.dead_letters] == [
        ("checksum", b"c d1", "d1")
    ]
    stage.journal.commit_all()
    assert stage.pipeline.shed["checksum"] == 1
    assert connection.sent == [b"ack 1;ack 2;"]


async def test_codes_that_a_plugin_makes_up_share_one_reason_in_the_ledger(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = stage.connect()
    monkeypatch.setattr(stage.codec, "decode_batch", lambda frames, _aux: [300 + at for at in range(len(frames))])
    await stage.send(connection, *["c d1"] * 20)
    letters = stage.journal.pending[0][0].dead_letters
    assert letters[1].reason == "plugin_error_301"
    stage.journal.commit_all()
    assert dict(stage.pipeline.shed) == {"plugin_error": 20}


async def test_a_flood_of_garbage_is_counted_but_not_all_of_it_is_kept() -> None:
    stage = Stage(PipelineConfig(dead_letters_per_s=3))
    connection = stage.connect()
    await stage.send(connection, *["c d1"] * 10)
    assert len(stage.journal.pending[0][0].dead_letters) == 3
    assert stage.pipeline.counts["dead_letters_shed"] == 7
    stage.clock.advance(1)
    await stage.send(connection, *["c d1"] * 10)
    assert len(stage.journal.pending[1][0].dead_letters) == 3


async def test_a_connection_that_keeps_trapping_the_plugin_is_closed(stage: Stage) -> None:
    connection, neighbour = stage.connect(), stage.connect()
    stage.pipeline.received(neighbour, [b"r d2 1"])
    await stage.send(connection, "x d1", "x d1", "x d1")
    stage.journal.commit_all()
    assert connection.close_reasons == ["poison_frames"]
    assert stage.pipeline.shed["trapped"] == 3
    assert neighbour.sent == [b"ack 1;"]


async def test_frames_after_a_killed_one_wait_for_the_next_turn_and_keep_their_order(stage: Stage) -> None:
    connection, neighbour = stage.connect(), stage.connect()
    stage.pipeline.received(connection, [b"r d1 1", b"k d1", b"r d1 2"])
    stage.pipeline.received(neighbour, [b"r d2 3"])
    await turns()
    assert stage.codec.batches == [4, 2]
    stage.journal.commit_all()
    assert [message.values["v"] for message in stage.messages.take_all(10)] == [1.0, 2.0, 3.0]
    assert stage.ledger_holds()
    assert stage.pipeline.in_flight == 0


async def test_a_stalled_disk_stops_decoding_and_pauses_the_senders() -> None:
    stage = Stage(PipelineConfig(waiting_messages=2), BacklogConfig(connection_frames=4))
    connection = stage.connect()
    await stage.send(connection, "r d1 1", "r d1 2")
    await stage.send(connection, "r d1 3", "r d1 4")
    assert stage.codec.batches == [2]
    assert connection.holds == {"backlog"}
    stage.journal.commit_all()
    await turns()
    stage.journal.commit_all()
    assert connection.holds == set()
    assert connection.sent == [b"ack 1;ack 2;", b"ack 3;ack 4;"]


async def test_a_full_journal_sheds_without_acknowledging(stage: Stage) -> None:
    connection = stage.connect()
    stage.journal.full = True
    await stage.send(connection, "r d1 1")
    assert stage.pipeline.shed["storage_failed"] == 1
    assert connection.sent == []
    assert stage.ledger_holds()


async def test_frames_for_a_plugin_that_is_not_loaded_are_shed_by_name(stage: Stage) -> None:
    connection = stage.connect()
    stage.plugin_missing = True
    await stage.send(connection, "r d1 1")
    stage.journal.commit_all()
    assert stage.pipeline.shed["plugin_unavailable"] == 1


async def test_a_frame_without_a_device_on_a_new_connection_is_shed(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "h - 1", "r d1 2", "h - 3")
    stage.journal.commit_all()
    assert stage.pipeline.shed["no_device"] == 1
    assert connection.sent == [b"ack 2;ack 3;"]


async def test_frames_sent_before_the_peer_hung_up_are_stored_before_it_goes_offline(stage: Stage) -> None:
    connection = stage.connect()
    stage.pipeline.received(connection, [b"r d1 1"])
    stage.pipeline.closed(connection, "peer_closed")
    await turns()
    stage.journal.commit_all()
    stage.journal.commit_all()
    assert stage.pipeline.stored == 1
    assert stage.event_types() == ["device.registered", "device.online", "device.offline"]
    assert connection.sent == [b"ack 1;"], "a peer that closed only its own half still reads"


async def test_a_known_device_whose_first_commit_was_refused_is_online_with_its_next_frame(stage: Stage) -> None:
    device = stage.directory.add("d1")
    connection = stage.connect()
    await stage.send(connection, "r d1 1")
    stage.journal.fail_all()
    assert not device.online
    await stage.send(connection, "r d1 2")
    stage.journal.commit_all()
    assert device.online
    assert stage.event_types() == ["device.online"]


async def test_a_device_is_online_again_on_the_connection_that_was_second(stage: Stage) -> None:
    first, second = stage.connect(), stage.connect()
    await stage.send(first, "g d1 1", "a d1 code-d1")
    await stage.send(second, "r d1 2")
    stage.journal.commit_all()
    stage.pipeline.closed(first, "idle")
    stage.journal.commit_all()
    await stage.send(second, "r d1 3")
    stage.journal.commit_all()
    session = stage.sessions.of(stage.directory.devices["default", "d1"])
    assert session is not None
    assert session.line is second


@pytest.mark.parametrize("source", ["required by the product", "set by the operator"])
async def test_an_impostor_is_neither_online_nor_reached_by_commands(source: str) -> None:
    required = source == "required by the product"
    stage = Stage(
        product=Product(
            tenant_id="default",
            id="p",
            plugin_id="letters",
            registration="auto",
            authentication="required" if required else "optional",
        )
    )
    device = stage.directory.add("d1")
    device.credential_digest, device.credential_source = "#right", "issued" if required else "operator"
    impostor = stage.connect()
    await stage.send(impostor, "r d1 1", "a d1 wrong", "h d1 2")
    stage.journal.commit_all()
    assert not device.online
    assert stage.sessions.of(device) is None
    assert stage.pipeline.shed["unauthenticated"] == 2
    await stage.send(impostor, "a d1 right", "r d1 3")
    stage.journal.commit_all()
    assert device.online


async def test_a_device_that_fails_its_proof_is_no_longer_reached_by_that_connection(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "g d1 1", "r d1 2", "a d1 wrong")
    stage.journal.commit_all()
    assert stage.sessions.of(stage.directory.devices["default", "d1"]) is None
    assert stage.event_types() == ["device.registered", "device.online", "device.offline"]


async def test_a_proof_whose_commit_was_refused_does_not_count(stage: Stage) -> None:
    stage.directory.products["default", "p"] = Product(
        tenant_id="default", id="p", plugin_id="letters", registration="auto", authentication="required"
    )
    stage.directory.add("d1")
    connection = stage.connect()
    await stage.send(connection, "a d1 own")
    stage.journal.fail_all()
    await stage.send(connection, "r d1 1")
    stage.journal.commit_all()
    assert stage.pipeline.shed["unauthenticated"] == 1


async def test_who_is_refused_again_and_again_is_closed(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "g d1 1", *["a d1 wrong"] * 10)
    stage.journal.commit_all()
    assert "refused" in connection.close_reasons


async def test_an_offline_state_whose_commit_was_refused_is_written_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.pipeline._DEPART_AGAIN_S", 0.01)
    connection = stage.connect()
    await stage.send(connection, "r d1 1")
    stage.journal.commit_all()
    stage.pipeline.closed(connection, "peer_closed")
    stage.journal.fail_all()
    await asyncio.sleep(0.05)
    stage.journal.commit_all()
    assert stage.event_types() == ["device.registered", "device.online", "device.offline"]
    assert [seen.online for commit in stage.journal.stored for seen in commit.seen.values()] == [True, False]


async def test_a_stranger_who_registers_is_told_that_he_is_not_admitted(stage: Stage) -> None:
    stage.directory.products["default", "p"] = Product(tenant_id="default", id="p", plugin_id="letters")
    connection = stage.connect()
    await stage.send(connection, "g stranger 1", "r stranger 2")
    stage.journal.commit_all()
    assert connection.sent == [b"ack 1 accepted=False credential=;"]
    assert stage.pipeline.shed["unregistered"] == 2


async def test_one_connection_cannot_invent_devices_without_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.things.admission.MOST_DEVICES", 3)
    connection = stage.connect()
    await stage.send(connection, *[f"r d{number} 1" for number in range(5)])
    stage.journal.commit_all()
    assert stage.pipeline.shed["too_many_devices"] == 2
    assert len(stage.directory.devices) == 3


async def test_a_turn_ends_at_its_bound_of_messages_however_few_frames_they_came_in() -> None:
    stage = Stage(PipelineConfig(piece_frames=1, turn_messages=2000, waiting_messages=3000))
    connection = stage.connect()
    await stage.send(connection, *["b d1 1"] * 8)
    assert [len(commit.messages) for commit, _ in stage.journal.pending] == [2000, 1000]
    while stage.pipeline.in_flight:
        stage.journal.commit_all()
        await turns()
    assert stage.pipeline.stored == 8
    assert stage.ledger_holds()


async def test_a_turn_ends_at_its_time_so_that_the_loop_breathes() -> None:
    stage = Stage(PipelineConfig(piece_frames=1, turn_ms=0))
    connection = stage.connect()
    stage.pipeline.received(connection, [b"r d1 1", b"r d1 2"])
    await turns()
    assert [len(commit.messages) for commit, _ in stage.journal.pending] == [1, 1]


async def test_pieces_shrink_while_their_frames_are_heavy_and_grow_again(stage: Stage) -> None:
    connection = stage.connect()
    stage.codec.clock = stage.clock
    for weight in (0.001, 0.0):
        stage.codec.takes_s = weight
        stage.codec.batches.clear()
        for _ in range(4):
            await stage.send(connection, *["r d1 1"] * 256)
        sizes = stage.codec.batches
        assert (sizes[-1] <= 16) if weight else (max(sizes) == 256), sizes
        stage.journal.commit_all()


async def test_a_part_of_a_longer_message_is_no_stored_message(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "p d1", "r d1 2")
    stage.journal.commit_all()
    assert (stage.pipeline.stored, stage.pipeline.shed["part"]) == (1, 1)


async def test_a_codec_that_hangs_while_encoding_is_asked_once_a_turn(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "r d1 1", *["h d1 trap"] * 5, "r d1 2")
    stage.journal.commit_all()
    assert stage.codec.encodes == 2
    assert connection.sent == [b"ack 1;"]
    assert stage.pipeline.counts["acks_failed"] == 6


async def test_a_codec_slow_at_encoding_lets_the_loop_breathe_and_gets_nothing_new_meanwhile(stage: Stage) -> None:
    connection, other = stage.connect(), stage.connect()
    stage.codec.clock, stage.codec.encode_s = stage.clock, 0.010
    await stage.send(connection, *[f"r d1 {number}" for number in range(8)])
    stage.journal.commit_all()
    assert stage.codec.encodes == 2
    stage.pipeline.received(other, [b"r d2 9"])
    await asyncio.sleep(0)
    assert (stage.codec.encodes, stage.codec.batches) == (4, [8])
    await turns()
    assert b"".join(connection.sent) == b"".join(b"ack %d;" % number for number in range(8))
    assert stage.codec.batches == [8, 1]
    assert not await stage.pipeline.drain(0)
    stage.journal.commit_all()
    assert other.sent == [b"ack 9;"]
    assert await stage.pipeline.drain(1)


async def test_draining_waits_for_acknowledgements(stage: Stage) -> None:
    connection = stage.connect()
    stage.codec.clock, stage.codec.encode_s = stage.clock, 1.0
    await stage.send(connection, "r d1 1", "r d1 2")
    stage.journal.commit_all()
    assert connection.sent == [b"ack 1;"]
    assert await stage.pipeline.drain(1)
    assert connection.sent == [b"ack 1;", b"ack 2;"]


async def test_a_connection_whose_answers_keep_trapping_the_plugin_is_closed(stage: Stage) -> None:
    connection, other = stage.connect(), stage.connect()
    for _ in range(3):
        await stage.send(connection, "h d1 trap")
        await stage.send(other, "r d2 1")
        stage.journal.commit_all()
    assert (connection.close_reasons, other.close_reasons) == (["poison_frames"], [])
    assert stage.codec.parties == {1, 2}


async def test_a_plugin_that_does_not_start_is_no_fault_of_the_peers(stage: Stage) -> None:
    connection = stage.connect()
    stage.codec.down = True
    await stage.send(connection, *["r d1 1"] * 5)
    stage.journal.commit_all()
    assert stage.pipeline.shed["plugin_unavailable"] == 5
    assert connection.close_reasons == []


async def test_rare_traps_do_not_add_up_to_a_closed_connection(stage: Stage) -> None:
    connection = stage.connect()
    for _ in range(5):
        await stage.send(connection, "x d1")
        stage.clock.advance(61)
    assert connection.close_reasons == []


async def test_codecs_are_told_which_connection_a_frame_came_from(stage: Stage) -> None:
    first, second = stage.connect(), stage.connect()
    stage.pipeline.received(first, [b"r d1 1", b"r d1 2"])
    stage.pipeline.received(second, [b"r d2 1"])
    await turns()
    assert stage.codec.aux == [1, 1, 2]


async def test_the_ledger_goes_on_where_the_database_stands(stage: Stage) -> None:
    stage.pipeline.resume_ledger({"stored": 10, "shed:checksum": 2})
    assert (stage.pipeline.accepted, stage.pipeline.stored, stage.pipeline.shed["checksum"]) == (12, 10, 2)
    assert stage.ledger_holds()


async def test_drain_waits_until_everything_accepted_is_durable(stage: Stage) -> None:
    connection = stage.connect()
    await stage.send(connection, "r d1 1")
    assert not await stage.pipeline.drain(0.01)
    stage.journal.commit_all()
    assert await stage.pipeline.drain(1)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.lists(st.sampled_from(["r d1 1", "c d1", "n d1", "x d2", "k d9", "e d2 boom", "h - 1"]), min_size=1),
        ),
        max_size=12,
    ),
    st.lists(st.booleans(), min_size=1, max_size=6),
)
def test_whatever_arrives_accepted_is_stored_plus_shed(
    arrivals: list[tuple[int, list[str]]], outcomes: list[bool]
) -> None:
    async def story() -> None:
        stage = Stage(PipelineConfig(piece_frames=7, waiting_messages=5))
        connections = [stage.connect() for _ in range(3)]
        for index, frames in arrivals:
            await stage.send(connections[index], *frames)
            assert stage.ledger_holds()
        for succeeds in [*outcomes, *[True] * 200]:
            (stage.journal.commit_all if succeeds else stage.journal.fail_all)()
            assert stage.ledger_holds()
            await turns()
        assert stage.pipeline.in_flight == 0
        assert stage.pipeline.accepted == sum(len(frames) for _, frames in arrivals)

    asyncio.run(story())
