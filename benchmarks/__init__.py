"""Benchmarks and endurance tests of the service: identity, soak, faults, raw speed, and the comparison with peers."""
