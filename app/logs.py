"""Log records as JSON lines, escaped and bounded."""

import json
import logging
import warnings
from datetime import UTC, datetime

MAX_MESSAGE, MAX_TRACE = 2000, 8000


class JsonLines(logging.Formatter):
    """time (UTC), process id, level, logger and message; for an exception, the end of its traceback.

    JSON escapes line breaks and control characters, so that a text cannot forge a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "process": record.process,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shortened(record.getMessage(), MAX_MESSAGE),
        }
        if record.exc_info:
            fields["trace"] = shortened(self.formatException(record.exc_info)[::-1], MAX_TRACE)[::-1]
        return json.dumps(fields)


def shortened(text: str, limit: int) -> str:
    """The beginning of a text, with an ellipsis if it was cut."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def configure(level: str) -> None:
    """Write log records and Python warnings of at least this level to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(True)
    # Pillow warns about odd uploads, and would fill the log.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
