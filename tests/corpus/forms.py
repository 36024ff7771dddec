"""Multipart bodies that must be refused."""

from base64 import b64encode

MULTIPART = "multipart/form-data; boundary=B"
HEAD = b'Content-Disposition: form-data; name="file"; filename="x.png"\r\n'
END = b"--B--\r\n"


def part(content: bytes, head: bytes = HEAD) -> bytes:
    """A part of a body whose boundary is B."""
    return b"--B\r\n" + head + b"\r\n" + content + b"\r\n"


def file(content: bytes, head: bytes = HEAD) -> bytes:
    """A body with one part."""
    return part(content, head) + END


def forms(image: bytes) -> dict[str, tuple[str, bytes]]:
    """Content-Type and body of each case; `image` is a supported file."""
    good = part(image)
    boundaries = {
        "no boundary": "multipart/form-data",
        "an empty boundary": "multipart/form-data; boundary=",
        "another boundary": "multipart/form-data; boundary=C",
        "a long boundary": "multipart/form-data; boundary=" + "B" * 5000,
        "a boundary that is not ASCII": "multipart/form-data; boundary=\xff",
        "two boundaries": MULTIPART + "; boundary=C",
        "two boundaries, the other first": "multipart/form-data; boundary=C; boundary=B",
        "an extended boundary": MULTIPART + "; boundary*=us-ascii''C",
        "two charsets": MULTIPART + "; charset=utf-8; charset=utf-16",
        "a parameter twice around a quoted one": MULTIPART + '; x="\\"; y; z="; x=1',
    }
    bodies = {
        "nothing": b"",
        "only the end": END,
        "no part": b"--B\r\n",
        "no end": part(image)[:-2],
        "a part without headers": b"--B\r\n\r\n" + image + b"\r\n" + END,
        "a header without an end": b"--B\r\n" + b"A: " + b"x" * 200_000,
        "a header without a name": b"--B\r\n:\r\n\r\n\r\n" + END,
        "text behind the last boundary": good + b"--B--text",
        "two files": good + good + END,
        "a file and another field": good + part(image, HEAD.replace(b'"file"', b'"other"')) + END,
        "text beside a file": good + part(b"x", b'Content-Disposition: form-data; name="n"\r\n') + END,
        "a thousand files": part(b"x") * 1000 + END,
        "no line feeds": (good + END).replace(b"\r\n", b"\r"),
        "no carriage returns": (good + END).replace(b"\r\n", b"\n"),
        "a thousand boundaries": b"--B\r\n" * 1000,
        "a hundred thousand hyphens": b"-" * 100_000,
        "a preamble without an end": b"x" * 500_000,
        "JSON": b'{"n":1}',
        "an empty file": file(b""),
        "a file that is not an image": file(b"no image"),
        "a truncated file": file(image[:-20]),
        "a form in a form": file(good + END),
        "almost boundaries": file(b"\r\n--" * 100_000),
        "base64": file(b64encode(image), HEAD + b"Content-Transfer-Encoding: base64\r\n"),
    }
    headers = {
        "no name": b'Content-Disposition: form-data; filename="x"\r\n',
        "no file name": b'Content-Disposition: form-data; name="file"\r\n',
        "no disposition": b"Content-Type: image/png\r\n",
        "another disposition": HEAD.replace(b"form-data", b"attachment"),
        "a header without a colon": b"Content-Disposition\r\n",
        "a header with a zero byte": b"A\0: b\r\n" + HEAD,
        "ten thousand headers": b"A: b\r\n" * 10_000 + HEAD,
        "another field": HEAD.replace(b'"file"', b'"image"'),
        "an empty field name": HEAD.replace(b'"file"', b'""'),
        "a field name with a zero byte": HEAD.replace(b'"file"', b'"fi\0le"'),
        "a very long file name": HEAD.replace(b"x.png", b"x" * 60_000),
        "two dispositions": HEAD + HEAD,
        "a file name of a thousand parentheses": HEAD.replace(b'"x.png"', b"(" * 1000),
        "a disposition of semicolons": HEAD.replace(b"form-data", b"form-data" + b";" * 4000),
        "a disposition of almost parameters": HEAD.replace(b"form-data;", b"form-data; " + b'a=";' * 900),
        "base64 encoding": HEAD + b"Content-Transfer-Encoding: Base64\r\n",
        "quoted-printable encoding": b"content-transfer-encoding: quoted-printable\r\n" + HEAD,
        "an encoding of two values": HEAD + b"Content-Transfer-Encoding: binary, base64\r\n",
        "two encodings": b"Content-Transfer-Encoding: binary\r\nContent-Transfer-Encoding: base64\r\n" + HEAD,
    }
    # Names that must have no effect; the content is refused.
    file_names = (b"../../etc/passwd", b"\xff\xfe", b"a%0d%0ab", b"a\tb")
    return (
        {name: (media_type, good + END) for name, media_type in boundaries.items()}
        | {name: (MULTIPART, body) for name, body in bodies.items()}
        | {name: (MULTIPART, file(image, head)) for name, head in headers.items()}
        | {f"a file named {name!r}": (MULTIPART, file(b"x", HEAD.replace(b"x.png", name))) for name in file_names}
        | {
            f"the charset {charset}": (f"{MULTIPART}; charset={charset}", file(b"x"))
            for charset in ("undefined", "punycode", "utf-16")
        }
    )
