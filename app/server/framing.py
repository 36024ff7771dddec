"""Checks of a request's head beyond those of llhttp (RFC 9112)."""

import re

from app.errors import BadRequest

# Section 3.2: origin-form, asterisk-form, or absolute-form with its authority; never a fragment.
TARGET = re.compile(rb"(?:https?://([^/?#]+))?/[^#]*|\*", re.IGNORECASE)
# RFC 3986, section 3.2.2: a name, an IPv4 address or an IPv6 address in brackets, and a port.
HOST = re.compile(rb"(?:(?:\[[0-9a-fA-F:.]+\]|[0-9a-zA-Z._~-]+)(?::[0-9]{1,5})?)?")


def check_head(method: bytes, version: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a head that two HTTP implementations could read differently; header names are in lower case.

    Raises BadRequest for versions other than 1.0 and 1.1, CONNECT, a target with a fragment or with an authority other
    than the Host, a missing, second or malformed Host, and transfer codings other than `chunked`, for which section 6.1
    has a 501: 5xx are counted as faults of the service.
    """
    hosts = [value for name, value in headers if name == b"host"]
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if version == "1.1":
        sound = len(hosts) == 1 and codings in ([], [b"chunked"])
    else:
        sound = version == "1.0" and len(hosts) <= 1 and not codings
    parts = TARGET.fullmatch(target)
    if not sound or method == b"CONNECT" or parts is None or not all(HOST.fullmatch(host) for host in hosts):
        raise BadRequest("this is not HTTP/1.1, or can be read in two ways")
    if parts[1] is not None and [parts[1]] != hosts:
        raise BadRequest("the request target names another host than the Host header")
