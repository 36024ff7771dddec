"""Measure how long the page takes to answer a stroke, in the browser.

    python -m tests.integration.strokes --url http://127.0.0.1:8000 --strokes 100

From the end of a stroke to its first reconstruction, and to the last answer of all models.
"""

import argparse
import random
from statistics import quantiles

from tests.integration.browser import DESKTOP, Watched, chromium, draw

# Milliseconds from the end of the newest stroke to each answer, by path.
RECORD = """() => {
    const original = window.fetch;
    let ended = 0;
    window.answered = [];
    addEventListener("pointerup", () => {
        ended = performance.now();
        window.answered = [];
    }, true);
    window.fetch = async (url, options) => {
        const [stroke, answered] = [ended, window.answered];
        const answer = await original(url, options);
        if (answered === window.answered) answered.push([url.pathname, performance.now() - stroke]);
        return answer;
    };
}"""


def main() -> None:
    """Draw, and print the median and the 95th percentile of both times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of a service that is ready")
    parser.add_argument("--strokes", type=int, default=100)
    arguments = parser.parse_args()
    chance = random.Random(1)
    first, last = [], []
    with chromium() as browser:
        page = browser.new_page(viewport=DESKTOP)
        watched = Watched(page)
        page.goto(f"{arguments.url}/#/draw")
        page.get_by_role("heading", level=1).wait_for()
        page.evaluate(RECORD)
        for _ in range(arguments.strokes):
            page.evaluate("location.hash = '#/draw'")
            draw(page, [(chance.uniform(0.2, 0.8), chance.uniform(0.15, 0.85)) for _ in range(5)])
            watched.settle()
            answers = page.evaluate("window.answered")
            first.append(min(ms for path, ms in answers if path.endswith("/reconstruct")))
            last.append(max(ms for _, ms in answers))
    for name, values in (("first reconstruction", first), ("last answer", last)):
        cuts = quantiles(values, n=20)
        print(f"{name}: median {cuts[9]:.0f} ms, 95th percentile {cuts[18]:.0f} ms of {len(values)} strokes")


if __name__ == "__main__":
    main()
