"""Messages of gRPC and random mutations of them, sent to a service."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import grpc

from app.open_inference.grpc_messages import load_messages
from app.open_inference.grpc_server import SERVICE
from tests.fuzz.service import mutated

# Statuses of a request that the service could not handle.
FAULTS = {"INTERNAL", "UNKNOWN"}
TIMEOUT_S = 60
MODEL = "cgan.generate"
SEED = {"seed": {"int64_param": 8}}
LABEL = {"name": "label", "datatype": "INT64", "shape": [2]}
# The fields of requests by RPC. Most are wrong in one way.
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "ServerLive": [{}],
    "ServerReady": [{}],
    "ServerMetadata": [{}],
    "ModelReady": [{"name": MODEL}, {"name": "\0"}],
    "ModelMetadata": [{"name": MODEL}, {"name": MODEL, "version": "x" * 5000}],
    "ModelInfer": [
        {"model_name": MODEL, "parameters": SEED, "inputs": [LABEL], "raw_input_contents": [bytes(16)]},
        {"model_name": MODEL, "parameters": SEED, "inputs": [LABEL], "raw_input_contents": [b"\xff" * 16]},
        {"model_name": MODEL, "parameters": SEED, "inputs": [LABEL | {"contents": {"int64_contents": [3, 7]}}]},
        {"model_name": MODEL, "parameters": SEED, "inputs": [LABEL | {"shape": [-1, 2**62]}] * 2},
        {"model_name": MODEL, "inputs": [{"name": "latent", "datatype": "FP32", "shape": [1, 100]}]},
        {"model_name": MODEL, "parameters": SEED | {"first": {"int64_param": 2**53 - 1}, "n": {"int64_param": 256}}},
        {"model_name": MODEL, "parameters": SEED, "outputs": [{"name": "label"}, {"name": "label"}]},
        {
            "model_name": "lenet.classify",
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 28, 28]}],
            "raw_input_contents": [bytes(784)],
        },
        {
            "model_name": "lenet.classify",
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 28, 28]}],
            "raw_input_contents": [b"\x7f\xc0" * 1568],
        },
    ],
}


@dataclass
class Seen:
    """The answers: how many of each status, and the messages with server errors."""

    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[bytes] = field(default_factory=list)


def fuzz(address: str, seconds: float, seed: int) -> Seen:
    """Send all messages once, then mutations of them until the time is over."""
    seen, chance, corpus = Seen(), random.Random(seed), list(messages())
    with grpc.insecure_channel(address) as channel:
        for rpc, message in corpus:
            send(channel, rpc, message, seen)
        until = monotonic() + seconds
        others = [message for _, message in corpus if message]
        while monotonic() < until:
            rpc, message = chance.choice(corpus)
            send(channel, rpc, mutated(message, others, chance), seen)
    return seen


def messages() -> Iterator[tuple[str, bytes]]:
    """The RPC and the bytes of each request."""
    made = load_messages()
    for rpc, requests in REQUESTS.items():
        for fields in requests:
            yield rpc, made[f"{rpc}Request"](**fields).SerializeToString()


def send(channel: grpc.Channel, rpc: str, message: bytes, seen: Seen) -> None:
    """Send a message and count the status of the answer."""
    try:
        channel.unary_unary(f"/{SERVICE}/{rpc}")(message, timeout=TIMEOUT_S)
        status = "OK"
    except grpc.RpcError as error:
        status = error.code().name
    seen.statuses[status] += 1
    if status in FAULTS:
        seen.faults.append(message)
