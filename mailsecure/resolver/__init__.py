"""The DNS, as :class:`mailsecure.world.Resolver` promises it.

:class:`DnsResolver` asks the recursive servers of the ini or of /etc/resolv.conf.
:mod:`.wire` puts one question to one server, :mod:`.answers` reads what comes back,
:mod:`.files` reads the two files of /etc, :mod:`.cache` remembers.
"""

from .lookup import DnsResolver, parse_server

__all__ = ["DnsResolver", "parse_server"]
