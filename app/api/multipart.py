"""Multipart bodies to the contents of their files, in linear time (RFC 7578, RFC 2046 section 5.1)."""

import re
from email.message import Message
from email.parser import HeaderParser
from email.policy import HTTP

from app.errors import InvalidRequest, UnsupportedMediaType

BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
MAX_HEAD_BYTES = 16 * 1024  # of one part
# Values of Content-Transfer-Encoding that leave the bytes as they are (RFC 2045, section 6.2).
IDENTITY_ENCODINGS = {"", "7bit", "8bit", "binary"}


def split_multipart(body: bytes, content_type: str, field: str, max_files: int) -> list[bytes]:
    """The contents of the files, 1 to `max_files`, all of which must be in the form field `field`.

    Raises InvalidRequest for anything else, UnsupportedMediaType for a file with a Content-Transfer-Encoding.
    """
    count = "one file" if max_files == 1 else f"1 to {max_files} files"
    invalid = InvalidRequest(f"the body must be multipart/form-data with {count} in the field {field!r} only")
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary("")
    if not BOUNDARY.fullmatch(boundary):
        raise invalid
    delimiter = b"\r\n--" + boundary.encode()
    # A line break before the body lets the first delimiter be like the others. Splitting is a linear search.
    preamble, *parts = (b"\r\n" + body).split(delimiter, max_files + 1)
    if not parts or preamble.strip() or not parts[-1].startswith(b"--") or not 1 <= len(parts) - 1 <= max_files:
        raise invalid
    return [_file_content(part, field, invalid) for part in parts[:-1]]


def _file_content(part: bytes, field: str, invalid: InvalidRequest) -> bytes:
    head, separator, content = part.partition(b"\r\n\r\n")
    line_end, _, lines = head.partition(b"\r\n")
    if not separator or line_end.strip(b" \t") or len(head) > MAX_HEAD_BYTES:
        raise invalid
    headers = HeaderParser(policy=HTTP).parsestr(lines.decode("latin-1"))
    encodings = [str(value).strip().lower() for value in headers.get_all("content-transfer-encoding", [])]
    if headers.defects or headers.get_content_disposition() != "form-data":
        raise invalid
    parameters = dict(headers.get_params(failobj=[], header="content-disposition"))
    if parameters.get("name") != field or "filename" not in parameters:
        raise invalid
    if not IDENTITY_ENCODINGS.issuperset(encodings):
        raise UnsupportedMediaType("files must be sent without a Content-Transfer-Encoding")
    return content
