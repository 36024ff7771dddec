"""Debian's Chromium, driven by Playwright."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 740}
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


class Faults(list[str]):
    """Console errors, exceptions and failed requests of a page, which is every violation of its policy too."""

    def watch(self, page: Page) -> None:
        """Record those of a page."""
        page.on("console", lambda message: self.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("response", lambda answer: self.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)


def draw(page: Page, points: Sequence[tuple[float, float]] = THREE) -> None:
    """Draw a stroke through these points with the mouse."""
    box: Any = page.get_by_label("Drawing area").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()
