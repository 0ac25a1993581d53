"""The load balancer: a session that came to a virtual address is held here, or by a peer.

:mod:`.picker` says who is next, :mod:`.health` who may be asked at all, and :mod:`.splice`
moves the octets between a client and a peer.
"""
