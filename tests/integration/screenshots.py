"""Screenshots of the studio for the documents.

    python -m tests.integration.screenshots --url http://127.0.0.1:8000 --output docs/studio

`--all` writes every room, light and dark, and at the width of a phone.
"""

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, ViewportSize

from tests.integration.browser import DESKTOP, PHONE, Watched, chromium, draw


def drawn(page: Page) -> None:
    """A drawing, and what the models make of it."""
    draw(page)
    page.get_by_text("reads 3").first.wait_for()


def sampled(page: Page) -> None:
    """The images of a seed."""
    page.get_by_role("button", name="Image 0 of seed").first.wait_for()


def walked(page: Page) -> None:
    """A point of a plane, and a path."""
    page.get_by_role("img", name="slerp, step").wait_for()


def compared(page: Page) -> None:
    """Two models, with their figures."""
    page.get_by_role("img", name="recall").nth(1).wait_for()


def filmed(page: Page) -> None:
    """A film in its middle."""
    slider = page.get_by_role("slider", name="Epoch")
    for _ in range(5):
        slider.press("ArrowRight")
    slider.blur()


def asked(page: Page) -> None:
    """Some answers of the quiz."""
    for choice in ("Real", "Made", "Made", "Real", "Made", "Made", "Made"):
        if (following := page.get_by_role("button", name="Next")).is_visible():
            following.click()
        page.get_by_role("button", name=choice).click()


def busy(page: Page) -> None:
    """Some seconds of requests."""
    for _ in range(4):
        page.get_by_role("link", name="Draw").click()
        draw(page)
        page.get_by_role("link", name="Under the hood").click()
        page.wait_for_timeout(2100)


ROOMS: dict[str, Callable[[Page], None]] = {
    "draw": drawn,
    "sample": sampled,
    "walk": walked,
    "compare": compared,
    "film": filmed,
    "quiz": asked,
    "hood": busy,
}
LOOKS: dict[str, tuple[Literal["light", "dark"], ViewportSize]] = {
    "light": ("light", DESKTOP),
    "dark": ("dark", DESKTOP),
    "phone": ("light", PHONE),
}
# The pictures that the documents show.
SHOWN = (
    ("draw", "light"),
    ("draw", "phone"),
    ("sample", "dark"),
    ("walk", "light"),
    ("compare", "dark"),
    ("film", "light"),
    ("quiz", "dark"),
    ("hood", "light"),
)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of a service that is ready")
    parser.add_argument("--output", type=Path, default=Path("docs/studio"), help="folder of the pictures")
    parser.add_argument("--all", action="store_true", help="every room in every look")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for room, look in product(ROOMS, LOOKS) if arguments.all else SHOWN:
            scheme, size = LOOKS[look]
            context = browser.new_context(color_scheme=scheme, viewport=size, reduced_motion="reduce")
            page = context.new_page()
            watched = Watched(page)
            page.goto(f"{arguments.url}/#/{room}")
            page.get_by_role("heading", level=1).wait_for()
            ROOMS[room](page)
            watched.settle()
            page.mouse.move(0, 0)
            page.screenshot(path=arguments.output / f"{room}-{look}.png")
            context.close()


if __name__ == "__main__":
    main()
