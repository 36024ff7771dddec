"""`python -m tests.integration.clients CLIENT HTTP GRPC FILE`: ask a service in all ways that a client has.

HTTP and GRPC: addresses as in 127.0.0.1:8000. FILE: gets the arrays and texts of the answers, by name (npz).
"""

import importlib
import sys

import numpy as np

client, http, grpc, file = sys.argv[1:]
# Both clients register messages of the same names, so that one process cannot import both.
module = importlib.import_module(f"tests.integration.clients.{client.partition('-')[0]}_client")
np.savez(file, **module.CLIENTS[client](http, grpc))
