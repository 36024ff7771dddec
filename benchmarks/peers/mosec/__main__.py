"""Starts mosec. Its processes import the worker by its module, which must not be this one."""

from benchmarks.peers.mosec.mosec_server import main

if __name__ == "__main__":
    main()
