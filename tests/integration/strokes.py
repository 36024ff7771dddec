"""Measure how long the page takes to answer a stroke, in the browser.

    python -m tests.integration.strokes --url http://127.0.0.1:8000 --strokes 100
    python -m tests.integration.strokes --url http://127.0.0.1:8000 --strokes 100 --people 30

From the end of a stroke to its first reconstruction, and to the last answer of all models. With several people, one
draws in the browser, and wrk sends requests of recorded strokes at the rate of the others.
"""

import argparse
import random
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit

from playwright.sync_api import Page

from tests.integration.browser import DESKTOP, Watched, chromium, draw

# Milliseconds from the end of the newest stroke to the last answer of each operation and model, which is that for the
# whole stroke; and all requests with a body.
RECORD = """() => {
    const original = window.fetch;
    const at = {};
    let ended = 0;
    window.answered = () => Object.entries(at).map(([path, time]) => [path, Math.max(0, time - ended)]);
    window.sent = [];
    addEventListener("pointerup", () => (ended = performance.now()), true);
    window.fetch = async (url, options) => {
        const answer = await original(url, options);
        at[`${url.pathname} ${url.searchParams.get("model")}`] = performance.now();
        if (options.body) {
            const body = new Uint8Array(await new Response(options.body).arrayBuffer());
            window.sent.push([url.pathname + url.search, options.headers["Content-Type"], Array.from(body)]);
        }
        return answer;
    };
}"""
# Whose requests the other people send, in random order.
RECORDED_STROKES = 10
# Seconds from one stroke of a person to the next.
PERIOD_S = 2.0
# A connection is one operation of one model on the page of a person, which has one request in flight.
SCRIPT = """
local requests = {{{requests}}}
function setup(thread) thread:set("seed", 1) end
function init() math.randomseed(seed) end
function delay() return math.random(0, {longest_ms}) end
function request() return requests[math.random(#requests)] end
"""


def main() -> None:
    """Draw, and print the median and the 95th percentile of both times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of a service that is ready")
    parser.add_argument("--strokes", type=int, default=100)
    parser.add_argument("--people", type=int, default=1, help=f"who draw a stroke each {PERIOD_S:g} s")
    arguments = parser.parse_args()
    chance = random.Random(1)
    first, last = [], []
    with chromium() as browser:
        page = browser.new_page(viewport=DESKTOP)
        watched = Watched(page)
        page.goto(f"{arguments.url}/#/draw")
        page.get_by_role("heading", level=1).wait_for()
        page.evaluate(RECORD)
        for _ in range(RECORDED_STROKES):
            stroke(page, watched, chance)
        with others(arguments.people - 1, page.evaluate("window.sent"), arguments.url):
            for _ in range(arguments.strokes):
                stroke(page, watched, chance)
                answers = page.evaluate("window.answered()")
                first.append(min(ms for path, ms in answers if "/reconstruct " in path))
                last.append(max(ms for _, ms in answers))
    for name, values in (("first reconstruction", first), ("last answer", last)):
        cuts = quantiles(values, n=20)
        print(f"{name}: median {cuts[9]:.0f} ms, 95th percentile {cuts[18]:.0f} ms of {len(values)} strokes")


def stroke(page: Page, watched: Watched, chance: random.Random) -> None:
    """Draw one stroke on an empty area, and wait for all answers."""
    page.evaluate("location.hash = '#/draw'")
    draw(page, [(chance.uniform(0.2, 0.8), chance.uniform(0.15, 0.85)) for _ in range(5)])
    watched.settle()


@contextmanager
def others(people: int, sent: list[tuple[str, str, list[int]]], url: str) -> Iterator[None]:
    """So many people draw meanwhile. Prints what wrk says of it."""
    if not people:
        yield
        return
    requests = []
    for path, media_type, body in sent:
        head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: {media_type}\r\n"
        requests.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + bytes(body))
    escaped = ", ".join('"' + "".join(f"\\{byte:03}" for byte in request) + '"' for request in requests)
    lanes = len({path.partition("&")[0] for path, *_ in sent})
    a_stroke = len(sent) / RECORDED_STROKES
    print(f"a stroke sends {a_stroke:.0f} requests")
    longest_ms = round(2 * 1000 * PERIOD_S * lanes / a_stroke)
    connections = people * lanes
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "strokes.lua"
        script.write_text(SCRIPT.format(requests=escaped, longest_ms=longest_ms))
        command = f"wrk --threads 1 --connections {connections} --duration 1h --script {script} {url}".split()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            try:
                yield
            finally:
                load.send_signal(signal.SIGINT)
                print(load.communicate()[0])


if __name__ == "__main__":
    main()
