"""Log records to JSON, one a line, escaped and bounded. Knows nothing of what is logged."""

import json
import logging
from datetime import UTC, datetime

MAX_MESSAGE, MAX_TRACE = 2000, 8000
# The reader of forms logs each one that is malformed, with a byte of it, and at debug every byte; what is wrong with a
# request is told to its caller only.
SILENT = "python_multipart"


class JsonLines(logging.Formatter):
    """time (UTC), level, logger and message; with an exception, the end of its trace.

    JSON escapes line ends and control characters, so that no text can pass for a record of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line of ASCII."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shortened(record.getMessage(), MAX_MESSAGE),
        }
        if record.exc_info:
            fields["trace"] = shortened(self.formatException(record.exc_info)[::-1], MAX_TRACE)[::-1]
        return json.dumps(fields)


def shortened(text: str, limit: int) -> str:
    """The beginning of a text, marked where it is not all."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def configure(level: str) -> None:
    """Write what is logged, and what Python warns of, to the error stream from this level on.

    Not what is logged of the forms that callers send.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(True)
    logging.getLogger(SILENT).setLevel(logging.CRITICAL)
