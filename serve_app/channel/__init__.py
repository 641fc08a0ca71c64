"""The direct channel: batches between an ingress and the replicas of its node, over Unix sockets.

`frame` is the format, `server` the replica's side, `connection` and `gateway` the ingress' side.
"""
