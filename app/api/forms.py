"""The pieces of a multipart body to the contents of its files. Knows no operation and no request.

Starlette's own reader keeps files on disk, decodes names that nobody reads, and takes a body without an end for whole.
"""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import UnsupportedMediaType

# Content-Transfer-Encoding of bytes that are as they are (RFC 2045, section 6.2). RFC 7578, section 4.7, has none.
PLAIN = {b"", b"7bit", b"8bit", b"binary"}


class InvalidForm(ValueError):
    """The body is no form of files in the one field that is read."""


class FileForm:
    """Takes a body piece by piece. Of what the caller says of a file only the field and the encoding are looked at.

    field: where all files must stand. max_files: how many there may be.
    """

    def __init__(self, content_type: str, field: str, max_files: int) -> None:
        """Raises InvalidForm for a type without a boundary."""
        self._field, self._max_files = field.encode(), max_files
        self._files: list[bytearray] = []
        self._name = self._disposition = self._encoding = b""
        self._ended = False
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise InvalidForm("boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._open,
                    "on_part_data": self._data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidForm("boundary") from error

    def feed(self, piece: bytes) -> None:
        """The next piece of the body. Raises InvalidForm, and UnsupportedMediaType for a file in base64 or the like."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise InvalidForm("form") from error

    def files(self) -> list[bytes]:
        """The contents, at least one, once all pieces were fed. Raises InvalidForm for a body without an end."""
        if not self._ended or not self._files:
            raise InvalidForm("end")
        return [bytes(file) for file in self._files]

    def _begin(self) -> None:
        self._name = self._disposition = self._encoding = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition += data[start:end]
        elif self._name.lower() == b"content-transfer-encoding":
            self._encoding += data[start:end]

    def _header_end(self) -> None:
        self._name = b""

    def _open(self) -> None:
        kind, options = parse_options_header(self._disposition)
        is_file = kind == b"form-data" and b"filename" in options and options.get(b"name") == self._field
        if not is_file or len(self._files) == self._max_files:
            raise InvalidForm("part")
        if self._encoding.strip().lower() not in PLAIN:
            raise UnsupportedMediaType("a file of a form is sent as it is, without a Content-Transfer-Encoding")
        self._files.append(bytearray())

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._files[-1] += data[start:end]

    def _end(self) -> None:
        self._ended = True
