"""Where the processor's time goes while callers ask: by thread as the system counts, by part as py-spy sees."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.archives import File
from benchmarks.campaign import SEEDS_A_CELL, WARM_UP_S
from benchmarks.cells import GENERATE_ALONE, GENERATE_ONE, GENERATE_SIXTEEN, GENERATE_VAE, Cell, Configuration
from benchmarks.load import apply_load
from benchmarks.machine import cores, facts
from benchmarks.places import RESULTS, SCRATCH
from benchmarks.processes import ServerFailed, descendants, running
from benchmarks.servers import SERVERS

CELLS: tuple[tuple[Cell, File], ...] = (
    (GENERATE_ONE, "fast"),
    (GENERATE_VAE, "plain"),
    (GENERATE_SIXTEEN, "fast"),
    (GENERATE_ALONE, "fast"),
)
SAMPLES_A_SECOND = 200
MAIN = "MainThread"

# A sample counts for the first of these that a frame is in, looked for from the innermost frame outwards.
PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("noise and labels", ("app/inference/latents.py", "app/inference/sampling.py")),
    ("8-bit pixels, PNG and base64", ("app/images/",)),
    ("rows to batches and back", ("app/inference/",)),
    ("metrics", ("app/metrics.py", "prometheus_client/")),
    ("checking the body", ("pydantic/", "app/api/bodies.py", "app/api/requests.py")),
    ("sockets", ("asyncio/selector_events.py", "selectors.py", "app/outlet.py")),
    ("HTTP", ("uvicorn/", "app/protocol.py", "app/backlog.py")),
    ("admission, middleware and answer", ("app/", "starlette/", "fastapi/")),
    ("its turns", ("asyncio/",)),
)
ELSEWHERE = "elsewhere"


class Profile(BaseModel):
    """One cell. Microseconds are of one core, for one image; shares are of the samples of the event loop's thread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: Cell
    file: File
    cores: int
    images_per_s: float
    loop_user_us: float
    loop_system_us: float
    workers_us: float
    load_us: float
    samples: int
    shares: dict[str, float]

    @property
    def all_us(self) -> float:
        """What all cores together have for an image."""
        return self.cores * 1e6 / self.images_per_s

    @property
    def rest_us(self) -> float:
        """Of that, what neither the service nor the load used: the rest of the machine, and idle cores."""
        return self.all_us - self.loop_user_us - self.loop_system_us - self.workers_us - self.load_us


def missing_programs() -> list[str]:
    """What has to be installed before this can be measured, one line each."""
    return [] if spy() else ["py-spy, which looks at the stack, is not installed: pip install '.[bench]'"]


def spy() -> str | None:
    """The program, of this environment or of the machine."""
    return shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


def measure(seconds: int, allocator: str) -> list[Profile]:
    """A server of its own for each cell. Raises ServerFailed, LoadFailed."""
    return [measure_cell(cell, file, seconds, allocator) for cell, file in CELLS]


def measure_cell(cell: Cell, file: File, seconds: int, allocator: str) -> Profile:
    """Count first and look afterwards: looking takes time of its own."""
    server = SERVERS["digits"]
    with running(Configuration(server.name, file), server.knobs(), allocator) as port:
        (process,) = descendants(os.getpid())
        path = server.path(cell)
        apply_load(port, path, cell, WARM_UP_S, SEEDS_A_CELL)
        before, load_before = threads_us(process), children_us()
        load = apply_load(port, path, cell, seconds, 2 * SEEDS_A_CELL)
        after, load_after = threads_us(process), children_us()
        with spied(process, seconds) as found:
            apply_load(port, path, cell, seconds + 1, 3 * SEEDS_A_CELL)
    if load.problem:
        raise ServerFailed(load.problem)
    images = load.requests * cell.n
    user, system = (after[process][kind] - before[process][kind] for kind in (0, 1))
    workers = sum(sum(after[thread]) - sum(before.get(thread, (0, 0))) for thread in after if thread != process)
    counted = Counter[str]()
    for stack, count in found.items():
        counted[part_of(stack)] += count
    total = counted.total()
    return Profile(
        cell=cell,
        file=file,
        cores=cores(),
        images_per_s=images / load.duration_s,
        loop_user_us=user / images,
        loop_system_us=system / images,
        workers_us=workers / images,
        load_us=(load_after - load_before) / images,
        samples=total,
        shares={name: counted[name] / total for name in (*(name for name, _ in PARTS), ELSEWHERE)},
    )


def threads_us(process: int) -> dict[int, tuple[float, float]]:
    """Time of each thread of a process, in its own code and in the system's; the main one has the process's id."""
    tick = 1e6 / os.sysconf("SC_CLK_TCK")
    used = {}
    for path in Path(f"/proc/{process}/task").glob("[0-9]*/stat"):
        fields = path.read_text().rpartition(")")[2].split()
        used[int(path.parent.name)] = (tick * int(fields[11]), tick * int(fields[12]))
    return used


def children_us() -> float:
    """Time of the children that have ended: of the load, as the server still runs."""
    times = os.times()
    return 1e6 * (times.children_user + times.children_system)


@contextmanager
def spied(process: int, seconds: int) -> Iterator[Counter[tuple[str, ...]]]:
    """Looks at a process for so long; how often each stack was seen on a core is there at the end.

    Raises ServerFailed where the system does not let it look.
    """
    output = SCRATCH / "stacks.txt"
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [str(spy()), "record", "--pid", str(process), "--duration", str(seconds), "--rate", str(SAMPLES_A_SECOND)]
    command += ["--threads", "--nonblocking", "--format", "raw", "--output", str(output)]
    found = Counter[tuple[str, ...]]()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as spying:
        yield found
        _, said = spying.communicate()
    if spying.returncode != 0:
        raise ServerFailed(f"py-spy ended with status {spying.returncode}: {said.strip()}")
    found.update(read_stacks(output.read_text()))


def read_stacks(text: str) -> Counter[tuple[str, ...]]:
    """The stacks of the main thread, frames from the outermost inwards, without the line that names the thread.

    text: a line for each stack of each thread, its frames with semicolons between them and how often it was seen.
    """
    found = Counter[tuple[str, ...]]()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if thread.endswith(MAIN):
            found[tuple(frames)] += int(count)
    return found


def part_of(stack: tuple[str, ...]) -> str:
    """The part that a stack belongs to; frames are `function (file:line)`."""
    for frame in reversed(stack):
        place = frame.rpartition("(")[2]
        for name, prefixes in PARTS:
            if place.startswith(prefixes):
                return name
    return ELSEWHERE


def markdown(profiles: list[Profile]) -> str:
    """Two tables side by side in one: what an image takes of the cores, and what the event loop's part of it is for."""
    heads = [f"{each.cell.title.removeprefix('generate ')}, {each.file}" for each in profiles]
    lines = ["| microseconds of a core for an image | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]

    def row(name: str, values: list[float]) -> None:
        lines.append(f"| {name} | " + " | ".join(f"{value:.0f}" for value in values) + " |")

    row("all cores: their number over images a second", [profile.all_us for profile in profiles])
    row("the workers", [profile.workers_us for profile in profiles])
    row("the load", [profile.load_us for profile in profiles])
    row("neither: the rest of the machine, and rest", [profile.rest_us for profile in profiles])
    row("the event loop's thread, in the system", [profile.loop_system_us for profile in profiles])
    row("the event loop's thread, in Python and its libraries", [profile.loop_user_us for profile in profiles])
    for name in (*(name for name, _ in PARTS), ELSEWHERE):
        loop = [profile.shares[name] * (profile.loop_user_us + profile.loop_system_us) for profile in profiles]
        row(f"event loop: {name}", loop)
    return "\n".join(lines)


def write(profiles: list[Profile], allocator: str) -> None:
    """Keep the figures with the facts of the machine."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"machine": facts(allocator), "profiles": [profile.model_dump(mode="json") for profile in profiles]}
    (RESULTS / "profile.json").write_text(json.dumps(content, indent=1) + "\n")


def read() -> list[Profile]:
    """What `write` kept."""
    return [Profile.model_validate(each) for each in json.loads((RESULTS / "profile.json").read_text())["profiles"]]
