"""What the head of a request must be beyond what llhttp checks (RFC 9112). Knows nothing of connections or bodies."""

import re

# RFC 9112, section 3.2: an origin-form, or an absolute-form with the authority apart; visible ASCII without `#`.
ORIGIN = re.compile(rb"/[!\"$-~]*|\*")
ABSOLUTE = re.compile(rb"https?://([^/?#@\s]+)((?:[/?][!\"$-~]*)?)", re.IGNORECASE)
# RFC 3986, section 3.2.2: a name, an IPv4 or bracketed IPv6 address, and a port.
HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[0-9a-zA-Z._~-]+)(:[0-9]{1,5})?|")
VERSIONS = ("1.1", "1.0")


class MalformedHead(ValueError):
    """A head that no answer but 400 fits."""


def checked_target(version: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The target in origin-form; the authority of an absolute one takes the place of the Host (section 3.2.2).

    Raises MalformedHead for another version than 1.0 and 1.1; a target of another form; no Host in HTTP/1.1, two,
    or one that is none; and for any transfer coding but `chunked`. That one is refused with 400 rather than the 501 of
    section 6.1: it is the caller's doing, and a 5xx would be counted as a fault of the service.
    """
    if version not in VERSIONS:
        raise MalformedHead("version")
    hosts, codings = [], []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if len(hosts) > 1 or (not hosts and version == "1.1") or not all(HOST.fullmatch(host) for host in hosts):
        raise MalformedHead("host")
    if codings and (version == "1.0" or len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
        raise MalformedHead("transfer coding")
    if ORIGIN.fullmatch(target):
        return target
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is None or not HOST.fullmatch(absolute[1]):
        raise MalformedHead("target")
    headers[:] = [(name, absolute[1] if name == b"host" else value) for name, value in headers]
    rest = absolute[2]
    return rest if rest.startswith(b"/") else b"/" + rest
