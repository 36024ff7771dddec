"""A page of metrics is rendered for all who ask meanwhile, is never older than the question, and takes turns."""

import asyncio
from threading import Event

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily

from app.metrics_page import MetricsPage


class Gated:
    """Counts renderings; each waits until it may go on."""

    def __init__(self) -> None:
        self.begun = Event()
        self.go_on = Event()
        self.times = 0

    def collect(self):
        self.times += 1
        self.begun.set()
        assert self.go_on.wait(60)
        yield GaugeMetricFamily("gated", "Renderings.", self.times)


def gated() -> tuple[MetricsPage, Gated]:
    registry = CollectorRegistry()
    collector = Gated()
    collector.go_on.set()
    registry.register(collector)
    collector.go_on.clear()
    collector.begun.clear()
    collector.times = 0
    return MetricsPage(registry), collector


def test_whoever_asks_while_a_page_is_made_shares_the_next_one():
    async def ask() -> None:
        page, collector = gated()
        first = asyncio.create_task(page.content())
        assert await asyncio.to_thread(collector.begun.wait, 60)
        others = [asyncio.create_task(page.content()) for _ in range(100)]
        collector.go_on.set()
        assert b"gated 1.0" in await first
        assert {await other for other in others} == {await others[0]}
        assert b"gated 2.0" in await others[0]
        assert collector.times == 2
        page.close()

    asyncio.run(ask())


def test_the_loop_goes_on_while_a_page_is_made_and_whoever_gives_up_takes_it_from_nobody():
    async def ask() -> None:
        page, collector = gated()
        impatient, patient = (asyncio.create_task(page.content()) for _ in range(2))
        assert await asyncio.to_thread(collector.begun.wait, 60)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)  # the loop comes to this: nothing holds it
        assert not patient.done()
        collector.go_on.set()
        assert b"gated 1.0" in await patient
        assert collector.times == 1
        page.close()

    asyncio.run(ask())


def test_a_page_shows_what_was_counted_before_it_was_asked_for():
    async def ask() -> None:
        registry = CollectorRegistry()
        counter = Counter("seen", "Things.", registry=registry)
        page = MetricsPage(registry)
        for number in range(1, 20):
            counter.inc()
            assert b"seen_total %d.0" % number in await page.content()
        page.close()

    asyncio.run(ask())
