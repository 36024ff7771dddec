"""Traces of a service of two processes, as an OpenTelemetry collector receives them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.open_inference.grpc_messages import load_messages
from app.open_inference.grpc_server import SERVICE
from tests.contract.process import Service, free_port, running, until
from tests.contract.wire import answers, connection
from tests.tiny_models import Autoencoder, write

CALLER = "00f067aa0ba902b7"


@dataclass
class Span:
    """A span that was received."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    """The spans that were received, in order."""

    spans: list[Span] = field(default_factory=list)

    def of(self, trace: str, *names: str) -> list[Span]:
        """The spans of a trace by their start, once there is one of each of these names, which may be repeated."""

        def found() -> list[Span]:
            return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.start)

        until(lambda: not Counter(names) - Counter(span.name for span in found()))
        return found()


def values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector and its address."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                of_resource = values(resource.resource.attributes)
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                        times = span.start_time_unix_nano, span.end_time_unix_nano
                        collector.spans.append(Span(span.name, *ids, *times, values(span.attributes), of_resource))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield collector, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write(models, "plain", Autoencoder(28), ())
    return models


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def service(collector: tuple[Collector, str], models: Path, grpc_port: int) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector[1])
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds
        settings = {"processes": "2", "models_dir": str(models), "tracing": "true", "grpc_port": str(grpc_port)}
        with running(**settings) as service:
            yield service


@pytest.fixture
def spans(collector: tuple[Collector, str]) -> Callable[..., list[Span]]:
    return collector[0].of


def test_a_request_is_followed_through_queue_and_batch(service, spans):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-{CALLER}-01", "X-Request-Id": "mine"}
    answer = httpx.post(f"{service.url}/generate", json={"n": 3}, headers=headers, timeout=60)
    assert answer.headers["x-request-id"] == "mine"
    request, queue, batch = spans(trace, "POST /generate", "queue", "batch")
    assert (request.name, request.parent) == ("POST /generate", CALLER)
    assert request.attributes["http.route"] == "/generate"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["digits.request_id"] == "mine"
    assert request.resource["service.name"] == "digits"
    assert request.resource["service.version"]
    job = {"digits.model": "plain", "digits.operation": "generate", "digits.rows": 3}
    assert (queue.name, queue.parent, queue.attributes) == ("queue", request.id, job)
    assert (batch.name, batch.parent, batch.attributes) == ("batch", request.id, job | {"digits.batch_rows": 3})
    assert request.start <= queue.start <= queue.end <= batch.start <= batch.end <= request.end


def test_a_request_of_several_batches_has_a_span_for_each(service, spans):
    answer = httpx.post(f"{service.url}/generate", json={"n": 100}, timeout=60)
    trace = answer.headers["x-request-id"]
    found = spans(trace, "POST /generate", "queue", "batch", "batch", "batch", "batch")
    batches = [span for span in found if span.name == "batch"]
    assert sum(span.attributes["digits.rows"] for span in batches) == 100
    assert len([span for span in found if span.name == "queue"]) == 1


def test_the_decoding_of_an_upload_comes_before_its_queue(service, spans, digit):
    answer = httpx.post(f"{service.url}/reconstruct", content=digit, headers={"Content-Type": "image/png"}, timeout=60)
    assert answer.status_code == 200
    found = spans(answer.headers["x-request-id"], "POST /reconstruct", "decode", "queue", "batch")
    assert [span.name for span in found] == ["POST /reconstruct", "decode", "queue", "batch"]
    assert found[1].attributes == {"digits.files": 1}


def test_pipelined_requests_have_traces_of_their_own(service, collector):
    names = [f"pipelined-{number}" for number in range(8)]
    unsampled = f"traceparent: 00-{'7' * 32}-{CALLER}-00\r\n\r\n{{}}"
    head = "POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    host, _, port = service.url.removeprefix("http://").partition(":")
    with connection((host, int(port))) as caller:
        sent = [f"{head}X-Request-Id: {name}\r\n\r\n{{}}{head}{unsampled}" for name in names]
        caller.sendall("".join(sent).encode())
        assert [status for status, _ in answers(caller, 2 * len(names))] == [200] * 2 * len(names)

    def requests() -> list[Span]:
        return [span for span in collector[0].spans if span.attributes.get("digits.request_id") in names]

    until(lambda: len(requests()) == len(names))
    assert {span.parent for span in requests()} == {""}
    assert len({span.trace for span in requests()}) == len(names)
    for request in requests():
        assert [span.name for span in collector[0].of(request.trace, "batch")] == ["POST /generate", "queue", "batch"]


def test_probes_scrapes_and_requests_that_are_not_sampled_have_no_trace(service, spans):
    trace = "5bf92f3577b34da6a3ce929d0e0e4736"
    with httpx.Client(base_url=service.url, timeout=60) as client:  # one connection, so one process
        for path in ("/livez", "/readyz", "/metrics"):
            assert client.get(path, headers={"traceparent": f"00-{trace}-{CALLER}-01"}).status_code == 200
        client.post("/generate", json={}, headers={"traceparent": f"00-{trace}-{CALLER}-00"}).raise_for_status()
        later = client.post("/generate", json={}).headers["x-request-id"]
    spans(later, "POST /generate")
    assert spans(trace) == []


def test_an_error_is_in_its_trace(service, spans):
    answer = httpx.post(f"{service.url}/generate", json={"n": 0}, timeout=60)
    (request,) = spans(answer.json()["request_id"], "POST /generate")
    assert request.attributes["http.response.status_code"] == 422


def test_a_call_of_grpc_is_followed_through_queue_and_batch(service, grpc_port, spans):
    trace, messages = "6bf92f3577b34da6a3ce929d0e0e4736", load_messages()
    metadata = (("traceparent", f"00-{trace}-{CALLER}-01"), ("x-request-id", "mine"))
    request = messages["ModelInferRequest"](model_name="plain.generate", parameters={"seed": {"int64_param": 8}})
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        method = f"{SERVICE}/ModelInfer"
        infer = channel.unary_unary(f"/{method}")
        infer(request.SerializeToString(), metadata=metadata, timeout=60)
        call, queue, batch = spans(trace, method, "queue", "batch")
        assert (call.name, call.parent) == (method, CALLER)
        expected = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": "OK"}
        assert call.attributes == expected | {"digits.request_id": "mine"}
        job = {"digits.model": "plain", "digits.operation": "infer_generate", "digits.rows": 1}
        assert (queue.name, queue.parent, queue.attributes) == ("queue", call.id, job)
        assert (batch.name, batch.parent) == ("batch", call.id)
        assert call.start <= queue.start <= queue.end <= batch.start <= batch.end <= call.end

        with pytest.raises(grpc.RpcError) as error:
            infer(messages["ModelInferRequest"](model_name="nobody").SerializeToString(), timeout=60)
        (own,) = (value for key, value in error.value.trailing_metadata() if key == "x-request-id")
        (refused,) = spans(own, method)  # without an id of the caller, the trace id is that of the request
        assert refused.attributes["rpc.response.status_code"] == "NOT_FOUND"

        probe = messages["ServerLiveRequest"]().SerializeToString()
        untraced = "7bf92f3577b34da6a3ce929d0e0e4736"
        parent = (("traceparent", f"00-{untraced}-{CALLER}-01"),)
        channel.unary_unary(f"/{SERVICE}/ServerLive")(probe, metadata=parent, timeout=60)
        _, later = infer.with_call(request.SerializeToString(), timeout=60)
        spans(dict(later.trailing_metadata())["x-request-id"], method)
    assert spans(untraced) == []


def test_without_a_collector_requests_are_answered_and_the_service_ends_in_time(models, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with running(models_dir=str(models), tracing="true", shutdown_grace_s="10") as service:
        assert httpx.post(f"{service.url}/generate", json={}, timeout=60).status_code == 200
    assert service.process.returncode == 0
