"""Clients of the Open Inference Protocol, as their users install them, in an environment of their own."""
