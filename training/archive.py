"""TorchScript archives: built from one network per capability, saved and opened.

TorchScript is deprecated upstream in favour of `torch.export`; the manifest's `format` will name a successor.
"""

import inspect
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# By name of the capability. Capabilities may share a network.
Networks = dict[str, nn.Module]

# Records that each PyTorchFileWriter adds.
WRITTEN_BY_PYTORCH = ("version", "byteorder", ".data/serialization_id")


class EagerArchive(nn.Module):
    """The eager twin of an archive: `archive.generate(latents)` calls the network of `generate`."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        for capability, network in networks.items():
            self.add_module(capability, network)

    @property
    def networks(self) -> Networks:
        """The network of each capability."""
        return {capability: network for capability, network in self._modules.items() if network is not None}

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each network, by the names of the capabilities that have the same parameters."""
        names: dict[tuple[nn.Parameter, ...], list[str]] = {}
        for capability, network in self.networks.items():
            names.setdefault(tuple(network.parameters()), []).append(capability)
        return {
            " and ".join(capabilities): sum(parameter.numel() for parameter in parameters)
            for parameters, capabilities in names.items()
        }


def script(archive: EagerArchive) -> bytes:
    """The content of a TorchScript file whose methods are the capabilities. Shared weights are stored once.

    It is saved to memory first: PyTorch aborts the process when it saves to a full disk.
    """
    parent = nn.Module()
    for capability, network in archive.networks.items():
        parent.add_module(f"{capability}_network", network)
    buffer = io.BytesIO()
    with _without_deprecations():
        scripted = torch.jit.script(parent.eval())
        for capability, network in archive.networks.items():
            arguments = ", ".join(inspect.signature(network.forward).parameters)
            # Modules of equal structure share a type, which has the methods from its first use on.
            if not hasattr(scripted, capability):
                scripted.define(
                    f"def {capability}(self, {arguments}):\n    return self.{capability}_network({arguments})\n"
                )
        torch.jit.save(scripted, buffer)
    return without_source_positions(buffer.getvalue())


def without_source_positions(content: bytes) -> bytes:
    """A TorchScript file without the records that map its code to lines of Python, which name paths of this machine."""
    reader, buffer = torch.PyTorchFileReader(io.BytesIO(content)), io.BytesIO()
    writer = torch.PyTorchFileWriter(buffer)
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in WRITTEN_BY_PYTORCH:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return buffer.getvalue()


def open_archive(content: bytes) -> nn.Module:
    """The module in the content of a TorchScript file, on the CPU, in eval mode. The content is trusted code."""
    with _without_deprecations():
        archive: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    return archive.eval()


@contextmanager
def _without_deprecations() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=category)
        yield
