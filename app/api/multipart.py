"""Multipart bodies to the contents of their files, in linear time (RFC 7578, RFC 2046 section 5.1)."""

import re

from app.errors import InvalidRequest, UnsupportedMediaType

# The rest of the last delimiter, and an epilogue.
END = re.compile(rb"--[ \t]*(\r\n.*)?", re.DOTALL)
BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
# Possessive, so that matching is linear.
TOKEN = rb"[\w!#$%&'*+.^`|~-]++"
PARAMETER = re.compile(rb';[ \t]*(%b)=(?:"((?:[^"\\]|\\.)*+)"|(%b))[ \t]*' % (TOKEN, TOKEN))
MAX_HEAD_BYTES = 4096  # of one part
# Values of Content-Transfer-Encoding that leave the bytes as they are (RFC 2045, section 6.2).
IDENTITY_ENCODINGS = {b"", b"7bit", b"8bit", b"binary"}


def split_multipart(body: bytes, content_type: str, field: str, max_files: int) -> list[bytes]:
    """The contents of the files, 1 to `max_files`, all of which must be in the form field `field`.

    Raises InvalidRequest for anything else, UnsupportedMediaType for a file with a Content-Transfer-Encoding.
    """
    count = "one file" if max_files == 1 else f"1 to {max_files} files"
    invalid = InvalidRequest(f"the body must be multipart/form-data with {count} in the field {field!r} only")
    boundary = _parameters(content_type.encode("latin-1"), invalid).get(b"boundary", b"")
    if not BOUNDARY.fullmatch(boundary):
        raise invalid
    # A line break before the body lets the first delimiter be like the others. Splitting is a linear search.
    preamble, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary, max_files + 1)
    if preamble.strip() or not 2 <= len(parts) <= max_files + 1 or not END.fullmatch(parts[-1]):
        raise invalid
    return [_file_content(part, field.encode(), invalid) for part in parts[:-1]]


def _file_content(part: bytes, field: bytes, invalid: InvalidRequest) -> bytes:
    head, separator, content = part.partition(b"\r\n\r\n")
    padding, _, lines = head.partition(b"\r\n")
    if not separator or padding.strip(b" \t") or len(head) > MAX_HEAD_BYTES:
        raise invalid
    headers: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or not re.fullmatch(TOKEN, name) or name.lower() in headers:
            raise invalid
        headers[name.lower()] = value.strip()
    disposition = headers.get(b"content-disposition", b"")
    parameters = _parameters(disposition, invalid)
    is_form_data = disposition.partition(b";")[0].strip().lower() == b"form-data"
    if not is_form_data or parameters.get(b"name") != field or b"filename" not in parameters:
        raise invalid
    if headers.get(b"content-transfer-encoding", b"").lower() not in IDENTITY_ENCODINGS:
        raise UnsupportedMediaType("files must be sent without a Content-Transfer-Encoding")
    return content


def _parameters(value: bytes, invalid: InvalidRequest) -> dict[bytes, bytes]:
    """The parameters of a header value by lower-case name. Raises `invalid` for malformed or repeated ones."""
    value = value.rstrip(b"; \t")
    start = len(value.partition(b";")[0])
    matches = list(PARAMETER.finditer(value, start))
    parameters = {match[1].lower(): match[3] if match[2] is None else match[2] for match in matches}
    if sum(len(match[0]) for match in matches) != len(value) - start or len(parameters) != len(matches):
        raise invalid
    return parameters
