"""As many open files as the connections of a process need. Knows nothing of what they are for."""

import resource

# Connections that wait to be accepted. asyncio takes up so many at once, before any of them can be refused, and a
# refused one is closed two turns of its loop later.
BACKLOG = 256
# Beside connections: those that are being refused, archives, logs, the event loop, and whatever libraries open.
RESERVE = 4 * BACKLOG


class TooFewDescriptors(Exception):
    """The process may not have that many open files."""


def provide(connections: int) -> None:
    """Raise the process's own limit of open files where it is too low, as far as it may.

    A server that meets the limit can accept nobody, cannot even say so, and logs each try. Raises TooFewDescriptors.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + RESERVE
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise TooFewDescriptors(
            f"DIGITS_MAX_CONNECTIONS={connections} takes {needed} open files, and the process may have {hard}"
        )
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (OSError, ValueError) as error:
        raise TooFewDescriptors(f"DIGITS_MAX_CONNECTIONS={connections} takes {needed} open files: {error}") from error
