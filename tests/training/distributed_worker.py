"""A process of the runs that test_distribution.py starts with torchrun: `distributed_worker.py DIRECTORY JOBS`.

For each job it saves the networks, the rows it trained on and numbers of its random stream in the directory.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from training import run, trainer
from training.archive import Networks
from training.config import TrainConfig
from training.data import Dataset
from training.families import batch_norm, build_learner, families
from training.learner import DataShape, Learner, TrainingSet
from training.stopping import Stopped


class Plain(Learner):
    """A linear autoencoder with gradient descent: its steps depend only on the images, not on noise."""

    latent_dim = 8

    def __init__(self) -> None:
        super().__init__(DataShape())
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(784, self.latent_dim), nn.Linear(self.latent_dim, 784))
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.5)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        loss = (self.network(images[0]) - images[0].flatten(1)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"error": loss.detach()}

    def networks(self, training_set: TrainingSet) -> Networks:
        return {"generate": nn.Sequential(self.network[2], nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))}


def run_job(job: dict[str, Any], dataset: Dataset, rank: int) -> dict[str, Any]:
    """Train, and return the job's results."""
    learners: list[Learner] = []
    rows: list[Tensor] = []

    def watched(config: TrainConfig, *arguments: Any) -> Learner:
        learner = Plain() if job.get("plain") else build_learner(config, *arguments)
        step = learner.step

        def watched_step(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            rows.append(images.clone())
            if rank == 1 and len(rows) == job.get("dies_at"):
                os._exit(17)
            if rank == 1 and len(rows) == job.get("stops_at"):
                signal.raise_signal(signal.SIGTERM)
            return step(images, labels)

        learner.step = watched_step  # type: ignore[method-assign]
        learners.append(learner)
        return learner

    run.build_learner = watched  # type: ignore[assignment,attr-defined]
    config = families()[job["config"]["family"]].config(**job["config"])
    # A directory for each process, to detect files that the second one writes.
    config = config.model_copy(update={"runs_dir": config.runs_dir / str(rank)})
    stopped = ""
    try:
        trainer.train(config, resume=job.get("resume", False), dataset=dataset)
    except Stopped as error:
        stopped = str(error)
    return {"modules": learners[0].state_dict(), "rows": rows, "noise": torch.randn(4), "stopped": stopped}


def main() -> None:
    root, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    dataset = Dataset(**torch.load(root / "dataset.pt"))
    trainer.export = lambda *_: root  # type: ignore[attr-defined]
    run.curves_png = lambda *_: b""  # type: ignore[attr-defined]
    trainer.evaluate_checkpoint = lambda *_: None  # type: ignore[assignment,attr-defined]
    batch_norm.BATCHES, batch_norm.ROWS = 1, 64
    distributed.init_process_group("gloo")  # once for all jobs, as torchrun's store does not allow a second group
    for job in json.loads(sys.argv[2]):
        torch.save(run_job(job, dataset, rank), root / f"{job['results']}-{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
