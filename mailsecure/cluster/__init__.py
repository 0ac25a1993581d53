"""The cluster: who is there, who owns each virtual address, and what they tell each other.

Hello datagrams (:mod:`.hello`) make nodes known to each other (:mod:`.membership`); each
virtual group has an election (:mod:`.election`); links (:mod:`.link`) notice a death at
once.  :mod:`.service` drives them all.
"""
