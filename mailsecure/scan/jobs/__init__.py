"""What takes the processor: functions that run in a worker's process.

A job is ``def name(arguments: dict, octets: bytes) -> dict``, blocks, imports no Twisted,
and raises :class:`~mailsecure.scan.faults.Unscannable` where the message is at fault.  A
module here may have a function ``prepare()`` that imports what its jobs need at some time;
it is called once, in the process that all workers are forked from.

One job is only one of the things that are done with a message in a worker: ask for
few, and have each do much.
"""
