"""A data set computed by a real Ray cluster of three nodes on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from app.dataset.directory import DatasetDirectory
from tests.conftest import contents
from tests.dataset.conftest import run_command
from tests.tiny_models import write_checkpoints

# Ray warns about its own settings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.usefixtures("collected"),
]


IMAGES = 200_000
START_S = 300  # of a node, at the most


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_checkpoints(folder)
    return folder


NODE = {"num_cpus": 1, "object_store_memory": 2**28}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes with a core each. The first one holds the state of the cluster."""
    cluster = Cluster(initialize_head=False)
    try:
        cluster.add_node(wait=False, include_dashboard=False, **NODE)
        cluster.add_node(wait=False, **NODE)
        cluster.wait_for_nodes(timeout=START_S)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Runs the command with these arguments; its exit status."""

    def written(models: Path, out: Path, **arguments: object) -> int:
        monkeypatch.setenv("DIGITS_MODELS_DIR", str(models))
        given = {"model": "cgan", "label": "balanced", "seed": 8, "format": "npz", "out": out} | arguments
        return run_command(monkeypatch, **given)

    return written


def test_a_killed_node_changes_no_byte(cluster, models, command, tmp_path, monkeypatch):
    assert command(models, tmp_path / "local", count=IMAGES, processes=1) == 0
    third = cluster.add_node(wait=False, **NODE)
    cluster.wait_for_nodes(timeout=START_S)
    add, added = DatasetDirectory.add, []

    def add_and_kill(directory, shard):
        add(directory, shard)
        added.append(shard.record.shard)
        if len(added) == 3:
            cluster.remove_node(third, allow_graceful=False)

    monkeypatch.setattr(DatasetDirectory, "add", add_and_kill)
    assert command(models, tmp_path / "cluster", count=IMAGES, ray=cluster.address) == 0
    assert sorted(added) == list(range(20))
    assert contents(tmp_path / "cluster") == contents(tmp_path / "local")


def test_a_cluster_goes_on_where_local_processes_stopped(cluster, models, command, tmp_path, capsys):
    assert command(models, tmp_path / "out", count=10_010, processes=1, format="idx") == 0
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "MNIST" / "raw" / "train-labels-idx1-ubyte").unlink()
    assert command(models, tmp_path / "out", count=10_010, ray=cluster.address, format="idx") == 0
    assert "wrote 2 of 2 shards" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before


def test_what_a_node_cannot_do_is_one_line(cluster, command, tmp_path, capsys):
    write_checkpoints(tmp_path / "models")
    (tmp_path / "models" / "cvae" / "cvae.pt").write_bytes(b"")
    assert command(tmp_path / "models", tmp_path / "out", model="cvae", count=10, ray=cluster.address) == 1
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if line.startswith("digits dataset:"))  # Ray warns of a full disk and the like
    assert "cvae.pt" in line
