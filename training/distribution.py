"""The processes of one run, as torchrun starts them: what they learn in common. Knows no family and no file.

Plain torch.distributed, and no wrapper around the networks. DistributedDataParallel wants every forward pass to go
through the wrapper and one backward pass for each, which the step of a GAN, with players that stand still, fakes
that are shared and penalties on gradients, does not give; Fabric and accelerate put the same wrapper behind an
interface of their own. Optimisers have a hook before each step: there the gradients of all processes are averaged,
for every family alike, in one message. Networks of a million weights would gain nothing from sending sooner.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

# Others wait this long for the first process, which alone measures and writes.
TIMEOUT = timedelta(minutes=30)
TORCHRUN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """A process among those of its run; where there is but one, everything here costs nothing."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that measures, shows and writes."""
        return self.rank == 0

    def begin(self, learner: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Give all processes the first one's weights, and let their optimisers step along common gradients."""
        if self.count == 1:
            return
        with torch.no_grad():
            for tensor in [*learner.parameters(), *learner.buffers()]:
                content = tensor.detach().contiguous()
                distributed.broadcast(content, 0)
                tensor.copy_(content)
        for optimizer in optimizers:
            optimizer.register_step_pre_hook(self._average_gradients)

    def own_rows(self, rows: Tensor) -> Tensor:
        """The share of this process of a batch's rows, `(streams, B)` to `(streams, B / count)`."""
        return rows.chunk(self.count, dim=1)[self.rank]

    def average_statistics(self, learner: nn.Module) -> None:
        """Average the buffers of all processes in place, such as the running statistics of batch normalisation.

        In training each process normalises by its own share of the batch, as DistributedDataParallel does.
        """
        if self.count > 1:
            self._average([buffer for buffer in learner.buffers() if buffer.is_floating_point()])

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean over the processes of each value."""
        if self.count == 1:
            return values
        vector = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        distributed.all_reduce(vector)
        return dict(zip(values, (vector / self.count).tolist(), strict=True))

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is set in any process. All must ask at the same step."""
        if self.count == 1:
            return flags
        vector = torch.tensor(flags, dtype=torch.int32, device=self.device)
        distributed.all_reduce(vector, distributed.ReduceOp.MAX)
        return tuple(bool(flag) for flag in vector.tolist())

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes by rank, in the first process; nothing in the others."""
        if self.count == 1:
            return [value]
        values: list[Any] | None = [None] * self.count if self.is_first else None
        distributed.gather_object(value, values)
        return values or []

    def from_first(self, make: Callable[[], Result]) -> Result:
        """What `make` gives the first process, in all of them. Its failure is raised in all of them, too."""
        if self.count == 1:
            return make()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = make()
            except Exception as error:
                outcome[1] = error
        distributed.broadcast_object_list(outcome, 0)
        if outcome[1] is not None:
            raise outcome[1]
        result: Result = outcome[0]
        return result

    def _average_gradients(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._average([parameter.grad for parameter in parameters if parameter.grad is not None])

    @torch.no_grad()
    def _average(self, tensors: Sequence[Tensor]) -> None:
        if not tensors:
            return
        vector = torch.cat([tensor.detach().flatten() for tensor in tensors])
        distributed.all_reduce(vector)
        vector /= self.count
        for tensor, mean in zip(tensors, torch.split(vector, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started, or this one alone. On CUDA each takes the device of its local rank.

    A group that the caller has made is used and left. Raises RuntimeError where the processes do not find each other.
    """
    if not os.environ.keys() >= TORCHRUN or os.environ["WORLD_SIZE"] == "1":
        yield Processes(device)
        return
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    own = not distributed.is_initialized()
    if own:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Processes(device, distributed.get_rank(), distributed.get_world_size())
    finally:
        if own:
            distributed.destroy_process_group()
