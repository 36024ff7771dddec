"""`python -m benchmarks ...`: arguments to a campaign or a sweep, no logic."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable

import app  # noqa: F401 # what it sets has to stand before PyTorch is imported
from benchmarks import batching, faults, memory, parts, profiling, raw, soak, starts
from benchmarks.archives import prepare_archives
from benchmarks.campaign import Campaign
from benchmarks.cells import plan
from benchmarks.documents import render
from benchmarks.identity import SEEDS, Mismatch, check
from benchmarks.load import LoadFailed
from benchmarks.machine import ALLOCATORS, advice, facts, in_the_way, missing_programs, tcmalloc
from benchmarks.places import RESULTS, WORK
from benchmarks.processes import ServerFailed
from benchmarks.records import Store
from benchmarks.report import markdown, write_results
from benchmarks.servers import SERVERS
from benchmarks.tuning import tune

ROUNDS, SECONDS = 2, 15


def names(text: str) -> list[str]:
    """Servers, in the order of the code."""
    asked = set(text.split(","))
    unknown = asked - SERVERS.keys()
    if unknown:
        raise argparse.ArgumentTypeError(f"no server is called {', '.join(sorted(unknown))}")
    return [name for name in SERVERS if name in asked]


def parser() -> argparse.ArgumentParser:
    """One subcommand an action."""
    root = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure digits against other servers.")
    actions = root.add_subparsers(dest="action", required=True)
    run = actions.add_parser("serve-bench", help="measure, and write results; finished cells are not run again")
    run.add_argument("--form", choices=("short", "full"), default="short")
    run.add_argument("--only", type=names, default=list(SERVERS), metavar="SERVER,...")
    run.add_argument("--rounds", type=int, default=ROUNDS)
    run.add_argument("--seconds", type=int, default=SECONDS, help=f"of each cell, default {SECONDS}")
    sweep = actions.add_parser("tune", help="try a peer's knobs and keep the best; finished trials are not run again")
    sweep.add_argument("peer", choices=[name for name, server in SERVERS.items() if server.grid])
    sweep.add_argument("--seconds", type=int, default=8, help="of each cell, default 8")
    alone = actions.add_parser("raw", help="measure the models alone, without a server")
    alone.add_argument("--rounds", type=int, default=3)
    alone.add_argument("--seconds", type=float, default=1.0, help="of each cell, default 1")
    actions.add_parser("parts", help="measure what one request costs inside the process, part by part")
    looking = actions.add_parser("profile", help="where the processor's time goes; needs py-spy")
    looking.add_argument("--seconds", type=int, default=15, help="of each of two loads on each cell, default 15")
    growing = actions.add_parser("batching", help="measure digits alone, from one caller to overload")
    growing.add_argument("--seconds", type=int, default=5, help="of each number of callers, default 5")
    holding = actions.add_parser("memory", help="what the service holds once ready and after each load")
    holding.add_argument("--seconds", type=int, default=6, help="of each load, default 6")
    for command in (run, sweep, looking, growing):
        command.add_argument("--allocator", choices=ALLOCATORS, help="default tcmalloc where it is installed")
    for command in (run, sweep):
        command.add_argument("--fresh", action="store_true", help="forget what was measured before")
    identity = actions.add_parser("identity", help="ask for the same seeds in every way and compare the bytes")
    identity.add_argument("--seeds", type=int, default=SEEDS, help=f"default {SEEDS}")
    identity.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    matrix = actions.add_parser("faults", help="starts, then harm the service in every way at every load")
    matrix.add_argument("--only", metavar="TEXT", help="faults whose name holds this, no starts; nothing is written")
    actions.add_parser("starts", help="start the service on every bad checkpoint, and see how it ends")
    longer = actions.add_parser("soak", help="an open loop at twice of what the service can do")
    longer.add_argument("--seconds", type=float, default=60, help="default 60; 3600 is an hour")
    longer.add_argument("--model", default="gan")
    actions.add_parser("render", help="write the tables of results into the documents that have their markers")
    return root


def serve_bench(arguments: argparse.Namespace) -> None:
    """Measure what is missing, then write results and tables."""
    store = Store(arguments.form)
    if arguments.fresh:
        store.clear()
    servers = [name for name in arguments.only if SERVERS[name].available()]
    campaign = Campaign(arguments.rounds, arguments.seconds, arguments.allocator)
    records = campaign.run(plan(arguments.form, servers), store)
    if not records:
        raise ServerFailed("none of the servers asked for can run here")
    found = facts(arguments.allocator)
    folder = RESULTS if is_whole(arguments) else WORK / "results"
    write_results(arguments.form, records, found, folder)
    if arguments.form == "full":  # whose cells are among them
        short = {(*configuration, cell) for configuration, cells in plan("short", servers) for cell in cells}
        among = [record for record in records if (record.server, record.file, record.cell) in short]
        write_results("short", among, found, folder)
    print(markdown(records, found))


def is_whole(arguments: argparse.Namespace) -> bool:
    """Whether the figures are worth keeping: a quick look must not replace them."""
    every = set(arguments.only) == set(SERVERS)
    return every and arguments.rounds >= ROUNDS and arguments.seconds >= SECONDS


def run_raw(arguments: argparse.Namespace) -> int:
    """Measure, keep and show; the exit status."""
    rates = raw.measure(arguments.rounds, arguments.seconds)
    raw.write(rates, os.environ.get("LD_PRELOAD") or "none")
    print(raw.markdown(rates))
    return 0


def run_parts() -> int:
    """Measure, keep and show; the exit status."""
    found = asyncio.run(parts.measure())
    parts.write(found)
    print(parts.markdown(found))
    return 0


def run_batching(arguments: argparse.Namespace) -> None:
    """Measure, keep and show."""
    found = batching.measure(arguments.seconds, arguments.allocator)
    batching.write(found, arguments.allocator)
    print(batching.markdown(found))


def run_profile(arguments: argparse.Namespace) -> None:
    """Measure, keep and show."""
    found = profiling.measure(arguments.seconds, arguments.allocator)
    profiling.write(found, arguments.allocator)
    print(profiling.markdown(found))


def run_memory(arguments: argparse.Namespace) -> int:
    """Measure, keep and show; the exit status."""
    found = memory.measure(arguments.seconds)
    memory.write(found)
    print(memory.markdown(found))
    return 0


def run_starts() -> int:
    """Start, keep and show; the exit status is 1 where a promise was broken."""
    found = starts.measure()
    starts.write(found)
    print(starts.markdown(found))
    return 0 if all(seen.kept for seen in found) else 1


def run_faults(only: str | None) -> int:
    """The starts first; then harm, keep and show; the exit status is 1 where a promise was broken."""
    status = run_starts() if only is None else 0
    found = asyncio.run(faults.measure(only))
    if only is None:
        faults.write(found)
    print(faults.markdown(found))
    return status if all(seen.kept for seen in found) else 1


def run_soak(arguments: argparse.Namespace) -> int:
    """Measure, keep and show; the exit status."""
    found = asyncio.run(soak.measure(arguments.seconds, arguments.model))
    soak.write(found)
    print(soak.markdown(found))
    return 0


def run_identity(arguments: argparse.Namespace) -> int:
    """Compare, and say what was compared; the exit status is 1 where a byte differs."""
    try:
        for line in check(arguments.seeds, arguments.precision):
            print(line, flush=True)
    except Mismatch as error:
        print(error, file=sys.stderr)
        return 1
    print("0 bytes differ")
    return 0


def perform(arguments: argparse.Namespace) -> int:
    """One command; the exit status: 2 where something has to be installed first. Raises ServerFailed and OSError."""
    if blocking := [] if arguments.action == "render" else in_the_way():
        print("\n".join(blocking), file=sys.stderr)
        return 2
    alone: dict[str, Callable[[], int]] = {
        "render": render,
        "parts": run_parts,
        "starts": run_starts,
        "faults": lambda: run_faults(arguments.only),
        "soak": lambda: run_soak(arguments),
        "identity": lambda: run_identity(arguments),
    }
    if arguments.action in alone:
        return alone[arguments.action]()
    if arguments.action == "raw":
        prepare_archives()
        return run_raw(arguments)
    return perform_under_load(arguments)


def perform_under_load(arguments: argparse.Namespace) -> int:
    """One command that needs wrk; otherwise as `perform`."""
    if missing := missing_programs() + (profiling.missing_programs() if arguments.action == "profile" else []):
        print("\n".join(missing), file=sys.stderr)
        return 2
    if arguments.action == "memory":
        return run_memory(arguments)
    for line in advice():
        print(line, file=sys.stderr)
    arguments.allocator = arguments.allocator or ("tcmalloc" if tcmalloc() else "none")
    if arguments.allocator == "tcmalloc" and tcmalloc() is None:
        return 2
    prepare_archives()
    if arguments.action == "batching":
        run_batching(arguments)
    elif arguments.action == "profile":
        run_profile(arguments)
    elif arguments.action == "tune":
        tune(SERVERS[arguments.peer], arguments.seconds, arguments.allocator, fresh=arguments.fresh)
    else:
        serve_bench(arguments)
    return 0


def main() -> int:
    """Run one command; its exit status. Failures a person can mend are one line on standard error."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that servers are ended
    arguments = parser().parse_args()
    try:
        return perform(arguments)
    except (ServerFailed, LoadFailed, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
