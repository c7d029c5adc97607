"""The gRPC wire's protocol, and the code that grpcio-tools makes of it (checked in).

`python -m transports.grpc_wire` makes it anew after a change of frames.proto; a test sees that it is fresh.
"""
