"""What happens to plugins is told as events: durable first, then on the bus."""

from __future__ import annotations

import structlog
from fakes.traffic import FakeClock, HeldJournal

from gateway.app.plugin_news import PluginNews
from gateway.core.bus import Bus, Overflow
from gateway.wasm.slot import Notice


async def test_a_notice_is_published_once_it_is_durable() -> None:
    journal, bus, clock = HeldJournal(), Bus(), FakeClock()
    heard = bus.events.subscribe("test", 10, Overflow.REJECT)
    PluginNews(journal, bus, clock).tell(Notice("plugin.swapped", {"plugin": "meter", "version": "2"}))
    assert heard.take_all(10) == []
    journal.commit_all()
    (event,) = heard.take_all(10)
    assert (event.type, event.tenant_id, event.device_id, event.at_ms) == (
        "plugin.swapped",
        "default",
        None,
        clock.now_ms(),
    )
    assert event.data == {"plugin": "meter", "version": "2"}


async def test_an_event_that_cannot_be_kept_is_logged_and_not_published() -> None:
    journal, bus = HeldJournal(), Bus()
    heard = bus.events.subscribe("test", 10, Overflow.REJECT)
    news = PluginNews(journal, bus, FakeClock())
    with structlog.testing.capture_logs() as lines:
        news.tell(Notice("plugin.refused", {"plugin": "meter"}))
        journal.fail_all()
        journal.full = True
        news.tell(Notice("plugin.refused", {"plugin": "meter"}))
    assert [line["event"] for line in lines] == ["an event of a plugin is lost"] * 2
    assert heard.take_all(10) == []
