"""The descriptors of a process: its standard streams, and the limit of open files that its connections need."""

import os
import resource
import sys

# Connections that the kernel queues until they are accepted. Beyond them, clients retry after a second.
BACKLOG = 1024
# Open files besides connections: connections being refused, archives, logs, metrics, the event loop, libraries.
RESERVE = 256


class TooFewDescriptors(Exception):
    """The limit on open files is too low."""


def raise_limit(connections: int) -> None:
    """Raise the soft limit of open files where it is too low.

    A server that reaches the limit cannot accept connections, not even a probe. Raises TooFewDescriptors.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + RESERVE
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (OSError, ValueError) as error:
        raise TooFewDescriptors(
            f"DIGITS_MAX_CONNECTIONS={connections} takes {needed} open files, and the hard limit is {hard}"
        ) from error


def open_standard_streams() -> None:
    """Open /dev/null in place of closed standard streams. Otherwise the next sockets would get their descriptors."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is `number`
            setattr(sys, name, os.fdopen(number, mode))
