"""Debian's Chromium, driven by Playwright."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, ViewportSize, sync_playwright

CHROMIUM = "/usr/bin/chromium"
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 375, "height": 740}
WAIT_S, POLL_MS, QUIET_POLLS = 60, 50, 8
# A three, as points in shares of the drawing area.
THREE = ((0.3, 0.22), (0.5, 0.15), (0.67, 0.3), (0.47, 0.48), (0.68, 0.63), (0.52, 0.83), (0.28, 0.75))


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        # Without a sandbox of its own: tests run in containers as root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """What happens on a page.

    faults: console errors, exceptions and failed requests, which is every violation of its policy too.
    """

    def __init__(self, page: Page) -> None:
        self.faults: list[str] = []
        self._page = page
        self._flying: set[Request] = set()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("response", self._answered)
        page.on("request", self._started)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)

    def _started(self, request: Request) -> None:
        self._flying.add(request)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(message.text)

    def _answered(self, answer: Response) -> None:
        if answer.status >= 400:
            self.faults.append(f"{answer.status} {answer.url}")

    def _ended(self, request: Request) -> None:
        self._flying.discard(request)

    def settle(self) -> None:
        """Wait until no request has been in flight for a while. Playwright's `networkidle` is of the load only."""
        quiet, deadline = 0, monotonic() + WAIT_S
        while quiet < QUIET_POLLS:
            assert monotonic() < deadline, f"still in flight: {[request.url for request in self._flying]}"
            self._page.wait_for_timeout(POLL_MS)
            quiet = 0 if self._flying else quiet + 1


def draw(page: Page, points: Sequence[tuple[float, float]] = THREE) -> None:
    """Draw a stroke through these points with the mouse."""
    box: Any = page.get_by_label("Drawing area").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()
