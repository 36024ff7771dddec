"""`python -m benchmarks ...`: the arguments and results of each benchmark."""

import argparse
import asyncio
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import chain

from benchmarks import (
    comparison_tables,
    drills,
    fairness,
    fault_injection,
    growth,
    identity,
    injections,
    neighbours,
    raw,
    soak,
    upload_cost,
)
from benchmarks.archives import prepare_archives
from benchmarks.cluster import CannotIsolate, in_namespaces
from benchmarks.comparison import compare, summarise
from benchmarks.conditions import conditions, tcmalloc
from benchmarks.documents import outdated
from benchmarks.paths import PEERS, RESULTS, ROOT, WORK
from benchmarks.processes import ServerFailed
from benchmarks.results import write_results
from benchmarks.servers import SERVERS
from benchmarks.wrk import WrkFailed

ROUNDS, SECONDS = 3, {"short": 5, "full": 3}


class CannotRun(Exception):
    """Something has to be installed or moved first; the text says what."""


def server_names(text: str) -> list[str]:
    """Servers by name, in the order of the code."""
    asked = set(text.split(","))
    if unknown := asked - SERVERS.keys():
        raise argparse.ArgumentTypeError(f"no server is called {', '.join(sorted(unknown))}")
    return [name for name in SERVERS if name in asked]


def parser() -> argparse.ArgumentParser:
    """One subcommand a benchmark."""
    root = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks and endurance tests of digits.")
    actions = root.add_subparsers(dest="action", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = actions.add_parser(name, help=text)
        command.set_defaults(run=run)
        return command

    command = add(
        "serve-bench", serve_bench, "compare the throughput with other servers; continues an interrupted comparison"
    )
    command.add_argument("--form", choices=("short", "full"), default="short")
    command.add_argument("--only", type=server_names, default=list(SERVERS), metavar="SERVER,...")
    command.add_argument("--rounds", type=int, default=ROUNDS)
    command.add_argument("--seconds", type=int, help=f"for each workload, default by form: {SECONDS}")
    command.add_argument("--allocator", choices=("tcmalloc", "none"), help="default: tcmalloc where it is installed")
    command.add_argument("--fresh", action="store_true", help="measure again what is finished")
    command = add("raw", raw_models, "measure the models without a server")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--seconds", type=float, default=1.0, help="for each case, default 1")
    command = add("normalize", normalize, "measure decoding and normalizing uploads, without a server")
    command.add_argument("--rounds", type=int, default=upload_cost.ROUNDS)
    command = add("growth", measure_growth, "measure over numbers of processes, callers and models")
    command.add_argument("--seconds", type=int, default=5, help="for each point, default 5")
    command = add("neighbours", beside_neighbours, "measure a fast model beside sequential ones and a stream")
    command.add_argument("--seconds", type=int, default=5, help="for each measurement, default 5")
    command = add("identity", check_identity, "request the same seeds in many ways and compare the bytes")
    command.add_argument("--seeds", type=int, default=identity.SEEDS, help=f"default {identity.SEEDS}")
    command.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    command = add("faults", faults, "inject faults into the service at every load")
    command.add_argument("--only", metavar="TEXT", help="only faults whose name contains this")
    command = add("fairness", fair, "attack the service beside honest callers of every operation")
    command.add_argument("--only", metavar="TEXT", help="only attacks whose name contains this")
    command.add_argument("--connections", type=int, help=f"of the attackers, default {fairness.CONNECTIONS}")
    command.add_argument("--seconds", type=float, default=fairness.SECONDS, help=f"default {fairness.SECONDS:g}")
    command = add("drills", drill, "replace, kill, partition and slow down replicas behind the proxy")
    command.add_argument("--only", metavar="TEXT", help="only drills whose name contains this")
    command.add_argument("--seconds", type=float, default=drills.SECONDS, help=f"a drill, default {drills.SECONDS:g}")
    command.add_argument("--replicas", type=int, nargs="+", default=list(drills.REPLICAS), help="numbers of replicas")
    command = add("soak", soak_test, "load the service with twice its capacity")
    command.add_argument("--seconds", type=float, default=60, help="default 60")
    command.add_argument("--model", default="gan")
    add("render", render, "write the tables of the results into the documents")
    return root


def serve_bench(arguments: argparse.Namespace) -> int:
    """Compare, print the tables; a complete run of the full form is written to the results."""
    require_wrk()
    allocator = arguments.allocator or ("tcmalloc" if tcmalloc() else "none")
    if allocator == "tcmalloc" and tcmalloc() is None:
        raise CannotRun("tcmalloc is not installed: apt-get install libtcmalloc-minimal4")
    servers = [name for name in arguments.only if SERVERS[name].available()]
    for name in set(arguments.only) - set(servers):
        print(f"{name} is left out: {SERVERS[name].program} is not installed", file=sys.stderr)
    prepare_archives()
    seconds = arguments.seconds or SECONDS[arguments.form]
    measurements = compare(arguments.form, servers, arguments.rounds, seconds, allocator, fresh=arguments.fresh)
    found = summarise(measurements)
    pinned = [path.read_text().splitlines() for path in sorted(PEERS.glob("*/requirements.txt"))]
    peers = sorted({line for line in chain(*pinned) if not line.startswith("#")})
    how = {"rounds": arguments.rounds, "seconds": seconds, "peers": peers}
    complete = arguments.form == "full" and servers == list(SERVERS) and seconds >= SECONDS["full"]
    folder = RESULTS if complete and arguments.rounds >= ROUNDS else WORK / "results"
    write_results("comparison", found, conditions(allocator) | how, folder)
    tables = [comparison_tables.details(found, each) for each in dict.fromkeys(one.workload for one in found)]
    print("\n\n".join([*tables, comparison_tables.overview(found, conditions(allocator) | how)]))
    return 0


def require_wrk() -> None:
    """Raises CannotRun without wrk."""
    if shutil.which("wrk") is None:
        raise CannotRun("wrk is not installed: apt-get install wrk")


def raw_models(arguments: argparse.Namespace) -> int:
    """Measure the models, print and write the results."""
    prepare_archives()
    rates = raw.measure(arguments.rounds, arguments.seconds)
    print(raw.markdown(rates))
    write_results("raw", rates, conditions(), RESULTS if arguments.seconds >= 1 else WORK / "results")
    return 0


def normalize(arguments: argparse.Namespace) -> int:
    """Measure each kind of file, print and write the results."""
    found = list(upload_cost.measure(arguments.rounds))
    print(upload_cost.markdown(found))
    complete = arguments.rounds >= upload_cost.ROUNDS
    write_results("normalize", found, conditions(), RESULTS if complete else WORK / "results")
    return 0


def measure_growth(arguments: argparse.Namespace) -> int:
    """Measure each point, print and write the results."""
    require_wrk()
    found = []
    for point in growth.measure(arguments.seconds):
        print(point, flush=True)
        found.append(point)
    write_results("growth", found, conditions(), RESULTS if arguments.seconds >= 5 else WORK / "results")
    return 0


def beside_neighbours(arguments: argparse.Namespace) -> int:
    """Measure, print and write the results."""
    require_wrk()
    found = neighbours.measure(arguments.seconds)
    print(neighbours.markdown(found))
    write_results("neighbours", found, conditions(), RESULTS if arguments.seconds >= 5 else WORK / "results")
    return 0


def check_identity(arguments: argparse.Namespace) -> int:
    """Compare bytes; 1 where one differs."""
    try:
        for line in identity.check(arguments.seeds, arguments.precision):
            print(line, flush=True)
    except identity.Mismatch as error:
        print(error, file=sys.stderr)
        return 1
    print("0 bytes differ")
    return 0


def faults(arguments: argparse.Namespace) -> int:
    """Inject faults, print and write the results; 1 where a promise was broken."""
    outcomes = asyncio.run(fault_injection.measure(arguments.only))
    print(fault_injection.markdown(outcomes))
    complete = {fault.name for fault in injections.faults()} == {outcome.fault for outcome in outcomes}
    write_results("faults", outcomes, conditions(), RESULTS if complete else WORK / "results")
    return int(any(outcome.broken for outcome in outcomes))


def fair(arguments: argparse.Namespace) -> int:
    """Attack, print and write the results; 1 where a promise was broken."""
    found = fairness.measure(arguments.only, arguments.connections, arguments.seconds)
    print(fairness.markdown(found))
    complete = not arguments.only and not arguments.connections and arguments.seconds >= fairness.SECONDS
    write_results("fairness", found, conditions(), RESULTS if complete else WORK / "results")
    return int(any(cell.broken() for cell in found))


def drill(arguments: argparse.Namespace) -> int:
    """Run the drills, print and write the results; 1 where a promise was broken."""
    in_namespaces()
    found = []
    for outcome in drills.measure(arguments.only, arguments.seconds, arguments.replicas):
        print(outcome, flush=True)
        found.append(outcome)
    print(drills.markdown(found))
    complete = not arguments.only and arguments.seconds >= drills.SECONDS
    complete &= arguments.replicas == list(drills.REPLICAS)
    write_results("drills", found, conditions(), RESULTS if complete else WORK / "results")
    return int(any(outcome.broken() for outcome in found))


def soak_test(arguments: argparse.Namespace) -> int:
    """Load the service, print and write the results; 1 where a promise was broken."""
    found = asyncio.run(soak.measure(arguments.seconds, arguments.model))
    print(soak.markdown(found))
    write_results("soak", [found], conditions(), RESULTS if arguments.seconds >= 60 else WORK / "results")
    return int(bool(found.broken()))


def render(_: argparse.Namespace) -> int:
    """Write the tables into the documents."""
    for path, text in outdated():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def main() -> int:
    """Run one benchmark; its exit status: 1 where it failed, 2 where it cannot run here."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # raises, so that servers are ended
    arguments = parser().parse_args()
    try:
        if (ROOT / "digits.env").exists():
            raise CannotRun("digits.env in the checkout changes the service that is measured: move it away")
        return int(arguments.run(arguments))
    except (CannotRun, CannotIsolate) as error:
        print(error, file=sys.stderr)
        return 2
    except (ServerFailed, WrkFailed, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
