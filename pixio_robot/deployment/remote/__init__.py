"""A policy on another computer: a server that runs an artifact, and a client that looks like one to the runtime.

Needs the extra `remote` (websockets and msgpack); `protocol` says what goes over the wire.
"""
