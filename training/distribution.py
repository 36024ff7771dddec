"""Data-parallel training in processes that torchrun starts.

Gradients are averaged over the processes in a hook before each optimiser step, in one message.
DistributedDataParallel, which Fabric and accelerate also use, requires that every forward pass goes through its wrapper
and is followed by one backward pass. The steps of a GAN, with frozen networks, shared fakes and gradient penalties, do
not. Overlapping communication with the backward pass would gain nothing for a million weights.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

# The other processes wait this long while the first evaluates and writes.
TIMEOUT = timedelta(minutes=30)
TORCHRUN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
Result = TypeVar("Result")


class ProcessLost(Exception):
    """The processes of a run cannot connect, or one has ended."""


@dataclass(frozen=True)
class Processes:
    """A process of a run. With a single process the methods do not communicate."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that evaluates, logs and writes."""
        return self.rank == 0

    def begin(self, learner: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Broadcast the first process's weights, and average gradients before each step of the optimisers."""
        if self.count == 1:
            return
        with torch.no_grad():
            for tensor in [*learner.parameters(), *learner.buffers()]:
                content = tensor.detach().contiguous()
                with connected():
                    distributed.broadcast(content, 0)
                tensor.copy_(content)
        for optimizer in optimizers:
            optimizer.register_step_pre_hook(self._average_gradients)

    def own_rows(self, rows: Tensor) -> Tensor:
        """The rows of a batch that this process takes, `(streams, B)` to `(streams, B / count)`."""
        return rows.chunk(self.count, dim=1)[self.rank]

    def average_statistics(self, learner: nn.Module) -> None:
        """Average floating-point buffers, such as the running statistics of batch normalisation, over the processes.

        In training each process normalises by the statistics of its own rows, as with DistributedDataParallel.
        """
        if self.count > 1:
            self._average([buffer for buffer in learner.buffers() if buffer.is_floating_point()])

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of each value over the processes."""
        if self.count == 1:
            return values
        vector = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        with connected():
            distributed.all_reduce(vector)
        return dict(zip(values, (vector / self.count).tolist(), strict=True))

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """Whether each flag is set in any process. All processes must call this at the same step."""
        if self.count == 1:
            return flags
        vector = torch.tensor(flags, dtype=torch.int32, device=self.device)
        with connected():
            distributed.all_reduce(vector, distributed.ReduceOp.MAX)
        return tuple(bool(flag) for flag in vector.tolist())

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes by rank, in the first process; an empty list in the others."""
        if self.count == 1:
            return [value]
        values: list[Any] | None = [None] * self.count if self.is_first else None
        with connected():
            distributed.gather_object(value, values)
        return values or []

    def from_first(self, make: Callable[[], Result]) -> Result:
        """Call `make` in the first process, and return its result, or raise its exception, in all processes."""
        if self.count == 1:
            return make()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = make()
            except Exception as error:
                outcome[1] = error
        with connected():
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
        with connected():
            distributed.all_reduce(vector)
        vector /= self.count
        for tensor, mean in zip(tensors, torch.split(vector, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))


@contextmanager
def connected() -> Iterator[None]:
    """Raises ProcessLost where a message to the other processes fails. PyTorch has no error of its own for that."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(str(error)) from error


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the process group of torchrun, if there is one. On CUDA each process uses the device of its local rank.

    An existing group is used and not destroyed. Raises ProcessLost if the processes cannot connect.
    """
    if not os.environ.keys() >= TORCHRUN or os.environ["WORLD_SIZE"] == "1":
        yield Processes(device)
        return
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    own = not distributed.is_initialized()
    if own:
        with connected():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Processes(device, distributed.get_rank(), distributed.get_world_size())
    finally:
        if own:
            distributed.destroy_process_group()
