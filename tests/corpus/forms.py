"""Multipart bodies, made by hand, each of which is refused. Values only: nothing here knows the service."""

from base64 import b64encode

HEAD = b'Content-Disposition: form-data; name="file"; filename="x.png"\r\n'


def part(content: bytes, head: bytes = HEAD) -> bytes:
    """One part of a body whose boundary is B."""
    return b"--B\r\n" + head + b"\r\n" + content + b"\r\n"


END = b"--B--\r\n"
MULTIPART = "multipart/form-data; boundary=B"


def forms(image: bytes) -> dict[str, tuple[str, bytes]]:
    """Content-Type and body of each; `image` is a file that would be taken."""
    good = part(image)
    return {
        "nothing": (MULTIPART, b""),
        "only the end": (MULTIPART, END),
        "no boundary": ("multipart/form-data", good + END),
        "an empty boundary": ("multipart/form-data; boundary=", good + END),
        "another boundary": ("multipart/form-data; boundary=C", good + END),
        "a long boundary": ("multipart/form-data; boundary=" + "B" * 5000, good + END),
        "a boundary that is not ASCII": ("multipart/form-data; boundary=\xff", good + END),
        "a start without parts": (MULTIPART, b"--B\r\n"),
        "a part without an end": (MULTIPART, part(image)[:-2]),
        "a part without headers": (MULTIPART, b"--B\r\n\r\n" + image + b"\r\n" + END),
        "a part without a name": (MULTIPART, part(image, b'Content-Disposition: form-data; filename="x"\r\n') + END),
        "a part without a disposition": (MULTIPART, part(image, b"Content-Type: image/png\r\n") + END),
        "another disposition": (MULTIPART, part(image, b'Content-Disposition: attachment; filename="x"\r\n') + END),
        "a broken header": (MULTIPART, part(image, b"Content-Disposition\r\n") + END),
        "a header with a zero byte": (MULTIPART, part(image, b"A\0: b\r\n" + HEAD) + END),
        "a header without an end": (MULTIPART, b"--B\r\n" + b"A: " + b"x" * 200_000),
        "a header without a value": (MULTIPART, b"--B\r\n:\r\n\r\n\r\n" + END),
        "ten thousand headers": (MULTIPART, part(image, b"A: b\r\n" * 10_000) + END),
        "another field": (MULTIPART, part(image, HEAD.replace(b'"file"', b'"image"')) + END),
        "an empty field": (MULTIPART, part(image, HEAD.replace(b'"file"', b'""')) + END),
        "a field with a zero byte": (MULTIPART, part(image, HEAD.replace(b'"file"', b'"fi\0le"')) + END),
        "text in place of a file": (MULTIPART, part(b"x", b'Content-Disposition: form-data; name="file"\r\n') + END),
        "text beside a file": (MULTIPART, good + part(b"x", b'Content-Disposition: form-data; name="n"\r\n') + END),
        "two files": (MULTIPART, good + good + END),
        "a file and another field": (MULTIPART, good + part(image, HEAD.replace(b'"file"', b'"other"')) + END),
        "an empty file": (MULTIPART, part(b"") + END),
        "a file that is no image": (MULTIPART, part(b"no image") + END),
        "a file cut short": (MULTIPART, part(image[:-20]) + END),
        "a form in a form": (MULTIPART, part(good + END) + END),
        "base64": (MULTIPART, part(b"iVBORw0KGgo=", HEAD + b"Content-Transfer-Encoding: base64\r\n") + END),
        "base64 of the image": (
            MULTIPART,
            part(b64encode(image), HEAD + b"Content-Transfer-Encoding: base64\r\n") + END,
        ),
        "an image said to be base64": (MULTIPART, part(image, HEAD + b"Content-Transfer-Encoding: Base64\r\n") + END),
        "an image said to be quoted-printable": (
            MULTIPART,
            part(image, b"content-transfer-encoding: quoted-printable\r\n" + HEAD) + END,
        ),
        "an image of two encodings": (
            MULTIPART,
            part(image, b"Content-Transfer-Encoding: binary\r\nContent-Transfer-Encoding: base64\r\n" + HEAD) + END,
        ),
        "two boundaries": (MULTIPART + "; boundary=C", good + END),
        "two boundaries, the other first": ("multipart/form-data; boundary=C; boundary=B", good + END),
        "a boundary twice": (MULTIPART + ";BOUNDARY=B", good + END),
        "a boundary in two spellings": (MULTIPART + "; boundary*=us-ascii''B", good + END),
        "a boundary in parts": ("multipart/form-data; boundary*0=B; boundary*1=C; boundary=B", good + END),
        "two boundaries behind a quote": ('multipart/form-data; x="; boundary=B; boundary=C', good + END),
        "a path for a name": (MULTIPART, part(b"x", HEAD.replace(b"x.png", b"../../etc/passwd")) + END),
        "a name that is no UTF-8": (MULTIPART, part(b"x", HEAD.replace(b"x.png", b"\xff\xfe")) + END),
        "a name with a line end": (MULTIPART, part(b"x", HEAD.replace(b"x.png", b"a%0d%0ab")) + END),
        "an extended name": (
            MULTIPART,
            part(b"x", b"Content-Disposition: form-data; name=file; filename*=utf-9''%ff\r\n") + END,
        ),
        "a very long name": (MULTIPART, part(b"x", HEAD.replace(b"x.png", b"x" * 60_000)) + END),
        "line ends without returns": (MULTIPART, (good + END).replace(b"\r\n", b"\n")),
        "a thousand boundaries": (MULTIPART, b"--B\r\n" * 1000),
        "a hundred thousand hyphens": (MULTIPART, b"-" * 100_000),
        "nearly boundaries": (MULTIPART, part(b"\r\n--" * 100_000)),
        "a preamble without an end": (MULTIPART, b"x" * 500_000),
        "JSON that says it is a form": (MULTIPART, b'{"n":1}'),
        "an odd charset": (MULTIPART + "; charset=undefined", part(b"x") + END),
        "a charset of two bytes": (MULTIPART + "; charset=utf-16", part(b"x") + END),
        "a thousand files": (MULTIPART, part(b"x") * 1000 + END),
    }
