"""Log records as JSON lines, escaped and bounded."""

import json
import logging
import warnings
from contextvars import ContextVar
from datetime import UTC, datetime

MAX_MESSAGE, MAX_TRACE, MAX_PATH = 2000, 8000, 200
# The id of the request that the current task serves.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)

access = logging.getLogger("app.access")


class JsonLines(logging.Formatter):
    """time (UTC), process id, level, logger and message; of a request its id; of an exception the end of its traceback.

    JSON escapes line breaks and control characters, so that a text cannot forge a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "process": record.process,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shortened(record.getMessage(), MAX_MESSAGE),
        }
        fields |= getattr(record, "fields", {})
        if (request_id := REQUEST_ID.get()) is not None:
            fields["request_id"] = request_id
        if record.exc_info:
            fields["trace"] = shortened(self.formatException(record.exc_info)[::-1], MAX_TRACE)[::-1]
        return json.dumps(fields)


def shortened(text: str, limit: int) -> str:
    """The beginning of a text, with an ellipsis if it was cut."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def log_access(method: str, path: str, status: int, seconds: float, code: str | None) -> None:
    """Log a request, without its query. status: 499 if the caller disconnected, 0 if no response began."""
    fields = {"method": method, "path": shortened(path, MAX_PATH), "status": status, "seconds": round(seconds, 6)}
    access.info("answered", extra={"fields": fields if code is None else fields | {"code": code}})


def configure(level: str) -> None:
    """Write log records and Python warnings of at least this level to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    access.setLevel(logging.INFO)  # whatever `level` is: the setting `access_log` decides
    logging.captureWarnings(True)
    # Pillow warns about odd uploads, and would fill the log.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
