"""Records as a campaign would make them."""

from benchmarks.archives import File
from benchmarks.cells import GENERATE_ONE, Cell
from benchmarks.load import Load
from benchmarks.records import Conditions, Record

CONDITIONS = Conditions(seconds=10, allocator="none", knobs={"workers": 2}, digests={"gan": "a", "vae": "b"})


def load(requests: int) -> Load:
    """Ten seconds without an error."""
    return Load(
        requests=requests,
        bytes=1000 * requests,
        duration_s=10,
        p50_ms=5,
        p90_ms=9,
        p99_ms=12,
        max_ms=40,
        socket_errors=0,
        bad_statuses=0,
    )


def record(
    server: str,
    file: File = "plain",
    requests: int = 1000,
    number: int = 1,
    cell: Cell = GENERATE_ONE,
    problem: str | None = None,
) -> Record:
    """A cell of a round: `requests` in ten seconds."""
    return Record(
        round=number,
        server=server,
        file=file,
        cell=cell,
        conditions=CONDITIONS,
        commit="abc",
        date="2026-01-01T00:00:00+00:00",
        load=load(requests),
        problem=problem,
        pss_bytes=512 * 2**20,
        cpu_s=10,
    )
