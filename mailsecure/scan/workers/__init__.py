"""Processes that take messages apart, and that can be killed.

:mod:`.pool` is what the daemon holds and everybody calls: it queues jobs, gives them to
processes, and kills a process that is late.  The processes are forked by one that has
imported everything (:mod:`.forking`, which :mod:`.forker` starts and speaks to), so another
one in the place of a killed one is there within milliseconds.  What such a process does is
:mod:`.child`; :mod:`.frames` are the octets between it and the daemon.
"""
