"""The Open Inference Protocol, version 2: a data plane, served over HTTP (`rest`) and gRPC (`grpc_server`).

Each capability of a model is a model of the protocol, as in `cgan.generate`, because a model of the protocol has a
single set of inputs and outputs. Its only version is the digest of the archive.
"""
