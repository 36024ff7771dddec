"""Every knob of the service, typed. One prefix in the environment: DIGITS_."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# RFC 6750, section 2.1, and no less than 16 of them.
KEY_PATTERN = re.compile(r"(?=.{16})[A-Za-z0-9._~+/-]+=*")
ORIGIN_PATTERN = re.compile(r"https?://([0-9a-z._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
HOST_PATTERN = re.compile(r"(\*\.)?[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]")


class Settings(BaseSettings):
    """Read from the environment: `DIGITS_PORT=9000` sets `port`. Raises ValidationError for a bad value."""

    model_config = SettingsConfigDict(env_prefix="DIGITS_", env_ignore_empty=True, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every interface")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one")
    models_dir: Path = Field(Path("models"), description="directory of checkpoints, one folder each")
    default_model: str | None = Field(
        None, description="model that serves where a request names none; unset, the first capable one by name"
    )
    device: str = Field("auto", description="auto (CUDA, else CPU), cpu, cuda, cuda:1, ...")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="float32, bfloat16 (of the models that ship it), auto (that where the device computes in it)",
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="forward passes at the same time; 0 is one a core that it is granted, or 1 on a GPU",
    )
    max_batch_rows: int = Field(32, ge=1, le=4096, description="rows of one forward pass")
    max_requests: int = Field(512, ge=1, le=100_000, description="requests in flight; more are refused")
    max_bytes_in_flight: int = Field(
        2**26, ge=2**20, le=2**36, description="bytes of the bodies of these requests, at least `max_upload_bytes`"
    )
    max_queued_rows: int = Field(
        4096, ge=1, le=1_000_000, description="rows in flight, waiting or being computed, at least `max_images`"
    )
    request_timeout_s: float = Field(
        30, gt=0, le=3600, description="seconds in which a request is to be computed, and the most a caller can ask for"
    )
    max_images: int = Field(256, ge=16, le=4096, description="images of one request")
    max_answer_pixels: int = Field(
        2**24, ge=2**16, le=2**28, description="pixels of all images of one answer, after `scale`"
    )
    max_json_bytes: int = Field(16 * 1024, ge=1024, le=2**24, description="bytes of a JSON body")
    max_upload_bytes: int = Field(2**20, ge=1024, le=2**28, description="bytes of a body that holds images")
    max_image_side: int = Field(1024, ge=28, le=8192, description="pixels of a side of an uploaded image")
    max_upload_pixels: int = Field(
        2**22,
        ge=28**2,
        le=2**28,
        description="pixels of all images of one upload, at least the square of `max_image_side`",
    )
    image_workers: int = Field(2, ge=1, le=64, description="threads that encode images")
    decode_workers: int = Field(2, ge=1, le=64, description="threads that decode uploads")
    max_waiting_uploads: int = Field(64, ge=1, le=4096, description="uploads that may wait to be decoded")
    receive_timeout_s: float = Field(
        10, gt=0, le=3600, description="seconds from the first byte of a request to its last; new connections to a byte"
    )
    max_connections: int = Field(
        2048, ge=1, le=1_000_000, description="connections at the same time, the next ones are refused"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="hosts that requests may name, as in a.org,*.b.org; unset, every one"
    )
    api_key: SecretStr | None = Field(
        None, description="what callers must send as `Authorization: Bearer`, 16 characters or more; unset, nothing"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="web pages that may read answers, as in https://a.org,http://b.org:8000, or *; unset, none"
    )
    worker_checks: int = Field(
        10,
        ge=2,  # a worker that is busy at one check has begun a moment ago, for all that is known
        le=3600,
        description="seconds, counted, after which a forward pass counts as hung and the process ends",
    )
    shutdown_lag_s: float = Field(
        1, ge=0, le=3600, description="seconds that requests are still taken after SIGTERM, when readiness says 503"
    )
    shutdown_grace_s: int = Field(15, ge=0, le=3600, description="seconds from SIGTERM to the end at the latest")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level logged")

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Text of the environment with commas in it."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not HOST_PATTERN.fullmatch(host):
                raise ValueError("names, *.names and addresses with commas between them, without ports")
        return tuple(host.lower() for host in value)

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value != ("*",) and not all(ORIGIN_PATTERN.fullmatch(origin) for origin in value):
            raise ValueError("origins as in https://a.org:8000 with commas between them and without paths, or *")
        return value

    @field_validator("api_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not KEY_PATTERN.fullmatch(value.get_secret_value()):
            raise ValueError("at least 16 letters, digits and any of -._~+/=")
        return value

    @model_validator(mode="after")
    def _a_whole_request_is_admitted(self) -> Self:
        if self.max_queued_rows < self.max_images:
            raise ValueError("DIGITS_MAX_QUEUED_ROWS is below DIGITS_MAX_IMAGES: a large request could never be served")
        if self.max_bytes_in_flight < self.max_upload_bytes:
            raise ValueError(
                "DIGITS_MAX_BYTES_IN_FLIGHT is below DIGITS_MAX_UPLOAD_BYTES: a large upload could never be served"
            )
        if self.max_upload_pixels < self.max_image_side**2:
            raise ValueError(
                "DIGITS_MAX_UPLOAD_PIXELS is below the square of DIGITS_MAX_IMAGE_SIDE: "
                "a large image could never be read"
            )
        return self
