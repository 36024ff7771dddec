"""The protocol over gRPC, with the extra `grpc`: every RPC of its service, over the same data plane as HTTP.

Each process of the service has its own server at the same port, and the kernel distributes connections among them
(SO_REUSEPORT), because gRPC cannot take over a listening socket.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from time import monotonic
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode, aio
from numpy.typing import NDArray

from app.api.admission import UNCOUNTED_BYTES, too_many_bytes
from app.api.middleware import MAX_HEADER_BYTES, answer_to, begin_request, check_key
from app.api.service_state import State
from app.errors import CallerGone, Draining, InvalidRequest, Overloaded, ServiceError, Unavailable, retry_after
from app.logs import log_access
from app.open_inference.dataplane import Encoder, make_job
from app.open_inference.grpc_messages import contents_of, fields_of, load_messages
from app.open_inference.messages import InferenceRequest, read_request
from app.open_inference.servable import SERVER, Servable, Tensor, find_servable
from app.open_inference.tensors import to_bytes
from app.settings import MAX_GRPC_CONNECTIONS

log = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
# RPCs that need no key, as the probes of HTTP.
PROBES = frozenset({"ServerLive", "ServerReady"})
# Of a message, which is parsed on the event loop: 334 images of 28x28 floats.
MAX_MESSAGE_BYTES = 2**20
# After this time a client reconnects, so that connections spread to processes that replaced others, and a request that
# never arrives holds none open.
CONNECTION_AGE_S = 600

CODES = {
    401: StatusCode.UNAUTHENTICATED,
    404: StatusCode.NOT_FOUND,
    413: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    499: StatusCode.CANCELLED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


class CannotServe(Exception):
    """Nothing can listen at the port of gRPC."""


class GrpcServer:
    """The gRPC server of a process. It belongs to one running event loop."""

    def __init__(self, state: State) -> None:
        self._settings = state["settings"]
        self._readiness = state["readiness"]
        self._metrics = state["metrics"]
        self._tracing = state["tracing"]
        self._requests = state["scoreboard"].counter("requests")
        self._bytes = state["scoreboard"].counter("bytes")
        key = self._settings.api_key
        self._key_digest = None if key is None else hashlib.sha256(key.get_secret_value().encode()).digest()
        self._messages = load_messages()
        limit = self._settings.max_requests
        self._server = aio.server(
            # More than are admitted, so that the others are refused with a reason and a time to retry.
            maximum_concurrent_rpcs=2 * limit,
            options=(
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_metadata_size", MAX_HEADER_BYTES),
                ("grpc.max_allowed_incoming_connections", MAX_GRPC_CONNECTIONS),
                ("grpc.max_connection_age_ms", CONNECTION_AGE_S * 1000),
                ("grpc.max_connection_age_grace_ms", int(self._settings.request_timeout_s * 1000)),
            ),
        )
        answers: dict[str, Callable[[Any, Any], Awaitable[bytes]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        handlers = {
            # Without serializers: messages are parsed after admission, and responses serialized on a worker.
            name: grpc.unary_unary_rpc_method_handler(partial(self._serve, name, answer))
            for name, answer in answers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port, a free one for `port` 0. Raises CannotServe."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise CannotServe(f"gRPC cannot listen at {address}: {error}") from error
        await self._server.start()
        return bound

    async def stop(self, grace_s: float) -> None:
        """Stop accepting calls, and cancel those that do not finish within `grace_s`."""
        await self._server.stop(grace_s)

    async def _serve(
        self, name: str, answer: Callable[[Any, Any], Awaitable[bytes]], content: bytes, context: Any
    ) -> bytes:
        """Handle an RPC. Aborts it with the status of an error."""
        metadata = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
        with self._span(name, metadata):
            return await self._answered(name, answer, content, context, metadata)

    def _span(self, name: str, metadata: list[tuple[str, str]]) -> AbstractContextManager[None]:
        """The span of an RPC, if it is traced."""
        if self._tracing is None or name in PROBES:
            return nullcontext()
        return self._tracing.rpc(f"{SERVICE}/{name}", dict(metadata))

    async def _answered(
        self,
        name: str,
        answer: Callable[[Any, Any], Awaitable[bytes]],
        content: bytes,
        context: Any,
        metadata: list[tuple[str, str]],
    ) -> bytes:
        started = monotonic()
        headers = [(key.encode(), value.encode()) for key, value in metadata]
        request_id = begin_request(headers, self._tracing.trace if self._tracing else None)
        origin = ("x-request-id", request_id)
        context.set_trailing_metadata((origin,))
        failure: ServiceError | None = CallerGone("the caller cancelled the call")
        try:
            if name not in PROBES and self._key_digest is not None:
                check_key([value for key, value in headers if key == b"authorization"], self._key_digest)
            with self._admitted(len(content), name):
                answered = await answer(self._parsed(name, content), context)
            failure = None
            return answered
        except asyncio.CancelledError:
            if self._readiness.shutting_down:  # the grace period is over
                failure = Draining()
            raise
        except Exception as error:
            failure = answer_to(error)
            assert failure is not None
            if isinstance(error, ServiceError) and failure.status == 500:
                log.error("the request failed: %s", failure.detail)
        finally:
            result = self._ended(name, failure, monotonic() - started)
        # Clients that are configured to retry wait this long.
        retry = [("grpc-retry-pushback-ms", str(1000 * retry_after()))] if isinstance(failure, Unavailable) else []
        await context.abort(result, failure.detail, (origin, *retry))
        raise AssertionError("abort raises")

    def _ended(self, name: str, failure: ServiceError | None, seconds: float) -> StatusCode:
        """Record the end of an RPC in metrics, trace and log. Returns its status."""
        status, code, result = 200, None, StatusCode.OK
        if failure is not None:
            status, code = failure.status, failure.code
            result = CODES.get(status, StatusCode.INTERNAL)
        path = f"/{SERVICE}/{name}"
        if name not in PROBES:
            self._metrics.request_ended("POST", path, status, seconds, code)
            if self._tracing is not None:
                self._tracing.rpc_ended(result.name)
        if self._settings.access_log:
            log_access("POST", path, status, seconds, code)
        return result

    @contextmanager
    def _admitted(self, size: int, name: str) -> Iterator[None]:
        """Count a request and its bytes together with those of HTTP. Raises Overloaded."""
        if name in PROBES:
            yield
            return
        counted = max(0, size - UNCOUNTED_BYTES)
        if self._requests.total >= self._settings.max_requests:
            raise Overloaded("too many requests are in flight; retry later")
        if self._bytes.total + counted > self._settings.max_bytes_in_flight:
            raise too_many_bytes()
        self._requests.add(1)
        self._bytes.add(counted)
        try:
            yield
        finally:
            self._requests.add(-1)
            self._bytes.add(-counted)

    def _parsed(self, name: str, content: bytes) -> Any:
        try:
            return self._messages[f"{name}Request"].FromString(content)
        except DecodeError:
            raise InvalidRequest("the message is malformed") from None

    def _answer(self, rpc: str, /, **fields: Any) -> bytes:
        content: bytes = self._messages[f"{rpc}Response"](**fields).SerializeToString()
        return content

    async def _server_live(self, _request: Any, _context: Any) -> bytes:
        return self._answer("ServerLive", live=True)

    async def _server_ready(self, _request: Any, _context: Any) -> bytes:
        return self._answer("ServerReady", ready=not self._readiness.reasons())

    async def _model_ready(self, request: Any, _context: Any) -> bytes:
        if self._readiness.reasons():
            return self._answer("ModelReady", ready=False)
        find_servable(self._readiness.engine(), request.name, request.version)
        return self._answer("ModelReady", ready=True)

    async def _server_metadata(self, _request: Any, _context: Any) -> bytes:
        self._readiness.engine()
        return self._answer("ServerMetadata", **SERVER)

    async def _model_metadata(self, request: Any, _context: Any) -> bytes:
        found = find_servable(self._readiness.engine(), request.name, request.version)
        return self._answer("ModelMetadata", **found.metadata.model_dump())

    async def _infer(self, request: Any, context: Any) -> bytes:
        remaining = context.time_remaining()
        limit = self._settings.request_timeout_s
        deadline = monotonic() + (limit if remaining is None else min(remaining, limit))
        engine = self._readiness.engine()
        servable = find_servable(engine, request.model_name, request.model_version)
        asked = read_request(fields_of(request))

        def make_encoder(outputs: Sequence[Tensor], _rows: int, seed: int | None) -> Encoder:
            return partial(self._encode, servable, asked, seed, outputs)

        job = make_job(servable, asked, contents_of(request), self._settings, make_encoder)
        with engine.admit(servable.model, job):
            return await engine.run(servable.model, job, deadline)

    def _encode(
        self,
        servable: Servable,
        asked: InferenceRequest,
        seed: int | None,
        outputs: Sequence[Tensor],
        arrays: Sequence[NDArray[Any]],
    ) -> bytes:
        """The message of a response, with raw contents."""
        return self._answer(
            "ModelInfer",
            model_name=servable.name,
            model_version=servable.version,
            id=asked.id or "",
            parameters={
                name: {"int64_param" if isinstance(value, int) else "string_param": value}
                for name, value in servable.origin(seed).items()
            },
            outputs=[
                {"name": tensor.name, "datatype": tensor.datatype, "shape": array.shape}
                for tensor, array in zip(outputs, arrays, strict=True)
            ],
            raw_output_contents=[
                to_bytes(array, tensor.datatype) for tensor, array in zip(outputs, arrays, strict=True)
            ],
        )
