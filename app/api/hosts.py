"""Which hosts a request may name. Knows no operation.

A service that answers to every name can be reached from any web page whose owner points a name of their own at its
address (DNS rebinding). Starlette's own middleware for this takes the port off at the first colon, and so breaks IPv6.
"""

from starlette.types import Scope

from app.errors import Misdirected

# Supervisors and balancers ask by address, and learn nothing that is of use to anybody else.
PROBES = frozenset({"/livez", "/readyz"})


class Hosts:
    """Host names; `*.a.org` is every name below a.org, and none at all means every one."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._names = frozenset(host for host in allowed if not host.startswith("*"))
        self._suffixes = tuple(host[1:] for host in allowed if host.startswith("*"))
        self._any = not allowed

    def check(self, scope: Scope) -> None:
        """Raises Misdirected for a request that names another host, or in HTTP/1.0 none; probes may name any."""
        if self._any or scope["path"] in PROBES:
            return
        given = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
        host = given[: given.index("]") + 1] if given.startswith("[") else given.partition(":")[0]
        if host not in self._names and (host.startswith(".") or not host.endswith(self._suffixes)):
            raise Misdirected("the host that the request names is not served here")
