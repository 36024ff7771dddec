"""The settings of the service. Environment variables have the prefix DIGITS_."""

import difflib
import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "DIGITS_"
# Rows of sequential models have this fraction of the bound on other rows, because they take far longer.
SEQUENTIAL_SHARE = 8
# Open gRPC connections per process, each of which carries many calls. They fit into the reserve of open files.
MAX_GRPC_CONNECTIONS = 128
# In the working directory; the environment overrides it.
SETTINGS_FILE = Path("digits.env")
# RFC 6750, section 2.1, with at least 16 characters.
KEY_PATTERN = re.compile(r"(?=.{16})[A-Za-z0-9._~+/-]+=*")
ORIGIN_PATTERN = re.compile(r"https?://([0-9a-z._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
HOST_PATTERN = re.compile(r"(\*\.)?[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]")


class BadSettings(Exception):
    """The service cannot start with these settings. The text has one line for each fault."""


class Settings(BaseSettings):
    """Read from the environment: `DIGITS_PORT=9000` sets `port`. Raises ValidationError for a bad value."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # which may be the key
    )

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all interfaces")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 for a free one")
    grpc_port: int | None = Field(
        None, ge=1, le=65535, description="TCP port of the Open Inference Protocol over gRPC; default: none"
    )
    models_dir: Path = Field(Path("models"), description="directory of checkpoints, one folder each")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="names of the checkpoints to load, as in cgan,vae; default: all"
    )
    default_model: str | None = Field(
        None, description="model for requests that name none; default: the first by name that supports the request"
    )
    device: str = Field("auto", description="auto (CUDA if available, else CPU), cpu, cuda, cuda:1, ...")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="float32, bfloat16 (for models that have it), or auto (bfloat16 if the device computes faster "
        "in it)",
    )
    processes: int = Field(0, ge=0, le=256, description="number of processes; 0: one per core on a CPU, one on a GPU")
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="concurrent batches per process; 0: one per core on a CPU, at most 8 with several processes, and "
        "one on a GPU",
    )
    max_batch_rows: int = Field(32, ge=1, le=4096, description="rows per batch")
    max_requests: int = Field(512, ge=1, le=100_000, description="requests in flight")
    max_bytes_in_flight: int = Field(
        2**27, ge=2**20, le=2**36, description="bytes of request bodies in memory, at least `max_upload_bytes`"
    )
    max_queued_rows: int = Field(
        4096, ge=1, le=1_000_000, description="rows in flight, waiting or being computed, at least `max_images`"
    )
    request_timeout_s: float = Field(
        30, gt=0, le=3600, description="time limit for computing a request in seconds; callers can ask for less"
    )
    max_images: int = Field(256, ge=16, le=4096, description="images per request")
    max_stream_images: int = Field(100_000, ge=16, le=1_000_000, description="images per streamed response")
    max_streams: int = Field(
        16,
        ge=1,
        le=10_000,
        description="streamed responses in flight, each with up to 64 rows that count as rows in flight",
    )
    max_answer_pixels: int = Field(
        2**24,
        ge=2**16,
        le=2**28,
        description="total pixels of the images in a response, or in a piece of a stream, after `scale`",
    )
    max_json_bytes: int = Field(16 * 1024, ge=1024, le=2**24, description="bytes per JSON body")
    max_upload_bytes: int = Field(2**23, ge=1024, le=2**28, description="bytes per body with images")
    max_image_side: int = Field(4096, ge=28, le=8192, description="longest side of an uploaded image in pixels")
    max_image_cost_ms: int = Field(
        50,
        ge=10,
        le=60_000,
        description="milliseconds of CPU time to decode and normalize an uploaded image, estimated before decoding",
    )
    max_upload_cost_ms: int = Field(
        500,
        ge=10,
        le=600_000,
        description="milliseconds of CPU time to decode and normalize all images of an upload, at least "
        "`max_image_cost_ms`",
    )
    decode_workers: int = Field(1, ge=1, le=64, description="threads per process that decode uploads")
    max_queued_files: int = Field(
        512, ge=64, le=100_000, description="uploaded files in flight, waiting or being decoded"
    )
    receive_timeout_s: float = Field(
        10,
        gt=0,
        le=3600,
        description="seconds from the first to the last byte of a request, and from a connection to its first byte",
    )
    max_connections: int = Field(2048, ge=1, le=1_000_000, description="open connections")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="host names that requests may use, as in a.org,*.b.org; default: all"
    )
    api_key: SecretStr | None = Field(
        None, description="key that callers must send as `Authorization: Bearer`, at least 16 characters; default: none"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins of web pages that may read responses, as in https://a.org,http://b.org:8000, or *"
    )
    studio: bool = Field(True, description="serve the studio, a page to explore the models, at `/`")
    worker_checks: int = Field(
        10,
        ge=2,  # a worker that is busy at one check may have started just before it
        le=3600,
        description="seconds after which a batch (of a sequential model: ten times as many) or a process counts as "
        "hung, and the process is replaced",
    )
    shutdown_lag_s: float = Field(
        1,
        ge=0,
        le=3600,
        description="seconds after SIGTERM in which requests are still served while `/readyz` returns 503",
    )
    shutdown_grace_s: int = Field(15, ge=0, le=3600, description="maximum seconds from SIGTERM to the exit")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level logged")
    access_log: bool = Field(False, description="log a line for each request, whatever `log_level` is")
    tracing: bool = Field(False, description="export OpenTelemetry traces; needs the extra `tracing`")

    @field_validator("models", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """A value of the environment, separated by commas."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("tracing")
    @classmethod
    def _tracing_is_installed(cls, value: bool) -> bool:
        if value:
            try:
                import_module("app.telemetry")
            except ImportError:
                raise ValueError("needs the extra `tracing`: pip install '.[tracing]'") from None
        return value

    @field_validator("models")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("must be names of checkpoints, separated by commas")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not HOST_PATTERN.fullmatch(host):
                raise ValueError("must be host names, *.names or addresses without ports, separated by commas")
        return tuple(host.lower() for host in value)

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value != ("*",) and not all(ORIGIN_PATTERN.fullmatch(origin) for origin in value):
            raise ValueError("must be origins such as https://a.org:8000, separated by commas, or *")
        return value

    @field_validator("api_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not KEY_PATTERN.fullmatch(value.get_secret_value()):
            raise ValueError("must have at least 16 letters, digits or characters of -._~+/=")
        return value

    @model_validator(mode="after")
    def _the_default_model_is_loaded(self) -> Self:
        if self.models and self.default_model is not None and self.default_model not in self.models:
            raise ValueError("DIGITS_DEFAULT_MODEL is not one of DIGITS_MODELS")
        return self

    @model_validator(mode="after")
    def _a_whole_request_is_admitted(self) -> Self:
        if self.max_queued_rows < self.max_images:
            raise ValueError("DIGITS_MAX_QUEUED_ROWS is below DIGITS_MAX_IMAGES: a large request would always fail")
        if self.max_bytes_in_flight < self.max_upload_bytes:
            raise ValueError(
                "DIGITS_MAX_BYTES_IN_FLIGHT is below DIGITS_MAX_UPLOAD_BYTES: a large upload would always fail"
            )
        if self.max_upload_cost_ms < self.max_image_cost_ms:
            raise ValueError(
                "DIGITS_MAX_UPLOAD_COST_MS is below DIGITS_MAX_IMAGE_COST_MS: a large image would always fail"
            )
        return self

    @property
    def limits(self) -> dict[str, int]:
        """The bounds on what is in flight in all processes, by the name of its counter on the scoreboard."""
        return {
            "connections": self.max_connections,
            "requests": self.max_requests,
            "bytes": self.max_bytes_in_flight,
            "rows": self.max_queued_rows,
            "sequential_rows": max(self.max_images, self.max_queued_rows // SEQUENTIAL_SHARE),
            "files": self.max_queued_files,
            "streams": self.max_streams,
        }


def read_settings() -> Settings:
    """The settings of the environment and of `SETTINGS_FILE`. Raises BadSettings."""
    try:
        if SETTINGS_FILE.exists() and not SETTINGS_FILE.is_file():  # reading a named pipe would block
            raise BadSettings(f"{SETTINGS_FILE}: not a regular file")
        return Settings(_env_file=SETTINGS_FILE)
    except ValidationError as error:
        raise BadSettings("\n".join(map(_line, error.errors(include_input=False, include_url=False)))) from None
    except (UnicodeDecodeError, OSError) as error:
        raise BadSettings(f"{SETTINGS_FILE}: {error}") from None


def unknown_variables(names: Iterable[str]) -> list[str]:
    """The environment variables with the prefix of settings that are not settings, each with the most similar one."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return [
        name + _similar(name) for name in sorted(names) if name.upper().startswith(PREFIX) and name.upper() not in known
    ]


def _similar(name: str) -> str:
    found = difflib.get_close_matches(name.lower().removeprefix(PREFIX.lower()), Settings.model_fields, n=1)
    return f" (did you mean {PREFIX}{found[0].upper()}?)" if found else ""


def _line(fault: ErrorDetails) -> str:
    """A line about one fault, which has no location if it concerns several settings together."""
    if fault["type"] == "extra_forbidden":  # only of the file, whose names keep their prefix
        (name,) = (str(part).upper() for part in fault["loc"])
        return f"{name}: unknown setting in {SETTINGS_FILE}{_similar(name)}"
    variables = "".join(f"{PREFIX}{str(part).upper().removeprefix(PREFIX)}: " for part in fault["loc"][:1])
    return variables + fault["msg"].removeprefix("Value error, ")
