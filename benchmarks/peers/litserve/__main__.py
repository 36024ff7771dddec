"""Starts LitServe. Its processes import the classes by their module, which must not be this one."""

from benchmarks.peers.litserve.litserve_server import main

if __name__ == "__main__":
    main()
