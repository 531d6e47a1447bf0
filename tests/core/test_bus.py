import asyncio

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bus import Bus, Overflow, Subscription, Topic
from gateway.core.flow import Event


def event(number: int) -> Event:
    return Event(tenant_id="default", type="device.online", at_ms=number)


def batch(*numbers: int) -> list[Event]:
    return [event(number) for number in numbers]


def numbers(events: list[Event]) -> list[int]:
    return [event.at_ms for event in events]


async def test_every_subscriber_gets_every_batch_in_order() -> None:
    topic: Topic[Event] = Topic()
    one, two = (topic.subscribe(name, 10, Overflow.DROP_OLDEST) for name in ("one", "two"))
    topic.publish(batch(1, 2))
    topic.publish(batch(3))
    assert [numbers(await one.take()), numbers(await one.take())] == [[1, 2], [3]]
    assert numbers(two.take_all(10)) == [1, 2, 3]


async def test_a_full_subscription_drops_its_oldest_batches_and_counts_them() -> None:
    subscription: Subscription[Event] = Subscription("rules", 4, Overflow.DROP_OLDEST)
    for start in (1, 3, 5):
        subscription.offer(batch(start, start + 1))
    assert (numbers(subscription.take_all(10)), subscription.shed) == ([3, 4, 5, 6], 2)


async def test_of_a_batch_over_the_bound_the_newest_items_are_kept() -> None:
    subscription: Subscription[Event] = Subscription("rules", 3, Overflow.DROP_OLDEST)
    subscription.offer(batch(1, 2))
    subscription.offer(batch(3, 4, 5, 6, 7))
    assert (numbers(subscription.take_all(10)), subscription.shed) == ([5, 6, 7], 4)


async def test_a_full_subscription_that_rejects_keeps_what_it_has() -> None:
    subscription: Subscription[Event] = Subscription("stream", 3, Overflow.REJECT)
    subscription.offer(batch(1, 2))
    subscription.offer(batch(3, 4))
    subscription.offer(batch(5))
    assert (numbers(subscription.take_all(10)), subscription.shed) == ([1, 2, 5], 2)


async def test_a_slow_subscriber_does_not_cost_its_neighbour_anything() -> None:
    topic: Topic[Event] = Topic()
    slow = topic.subscribe("slow", 1, Overflow.DROP_OLDEST)
    quick = topic.subscribe("quick", 100, Overflow.DROP_OLDEST)
    for number in range(50):
        topic.publish(batch(number))
    assert (slow.shed, quick.shed, len(quick)) == (49, 0, 50)


async def test_what_a_filter_refuses_takes_no_room_and_is_not_shed() -> None:
    subscription: Subscription[Event] = Subscription("odd", 2, Overflow.REJECT, lambda item: item.at_ms % 2 == 1)
    subscription.offer(batch(1, 2, 4, 6, 3))
    subscription.offer(batch(8))
    assert (numbers(await subscription.take()), len(subscription), subscription.shed) == ([1, 3], 0, 0)


async def test_a_reader_waits_for_the_next_batch() -> None:
    subscription: Subscription[Event] = Subscription("waits", 10, Overflow.DROP_OLDEST)
    reader = asyncio.gather(subscription.take())
    await asyncio.sleep(0)
    assert not reader.done()
    subscription.offer(batch(7))
    assert [numbers(taken) for taken in await reader] == [[7]]


async def test_a_closed_subscription_ends_after_what_waits() -> None:
    topic: Topic[Event] = Topic()
    subscription = topic.subscribe("ends", 10, Overflow.DROP_OLDEST)
    topic.publish(batch(1))
    topic.unsubscribe(subscription)
    topic.publish(batch(2))
    assert numbers(await subscription.take()) == [1]
    assert await subscription.take() == []
    assert topic.subscriptions == ()
    topic.unsubscribe(subscription)


async def test_closing_wakes_a_reader_that_waits() -> None:
    subscription: Subscription[Event] = Subscription("waits", 10, Overflow.DROP_OLDEST)
    reader = asyncio.gather(subscription.take())
    await asyncio.sleep(0)
    subscription.close()
    assert await asyncio.wait_for(reader, 10) == [[]]


async def test_messages_and_events_go_their_own_ways() -> None:
    bus = Bus()
    messages = bus.messages.subscribe("messages", 10, Overflow.DROP_OLDEST)
    events = bus.events.subscribe("events", 10, Overflow.DROP_OLDEST)
    bus.events.publish(batch(1))
    assert (len(messages), len(events)) == (0, 1)


@given(
    sizes=st.lists(st.integers(0, 6), max_size=40),
    most=st.integers(1, 10),
    overflow=st.sampled_from(Overflow),
)
def test_what_was_offered_is_what_waits_and_what_was_shed(sizes: list[int], most: int, overflow: Overflow) -> None:
    async def offer_all() -> None:
        subscription: Subscription[Event] = Subscription("any", most, overflow)
        for size in sizes:
            subscription.offer(batch(*range(size)))
            assert len(subscription) <= most
        waiting = len(subscription)
        assert waiting == len(subscription.take_all(10**6))
        assert waiting + subscription.shed == sum(sizes)

    asyncio.run(offer_all())
