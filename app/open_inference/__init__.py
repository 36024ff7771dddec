"""The Open Inference Protocol, version 2: a data plane, served over HTTP (`rest`) and gRPC (`grpc_server`).

Each capability of a model is a model of the protocol, as in `cgan.generate`, because a model of the protocol has one
set of inputs and one of outputs. Its only version is the digest of the archive.
"""
