"""Clients of scanners that run as daemons of their own.

Each engine has a codec without sockets (:mod:`.clamd`, :mod:`.checkv2`, :mod:`.spamc`,
:mod:`.respmod`, :mod:`.packets`) and a client (:mod:`.clamav`, :mod:`.rspamd`,
:mod:`.spamassassin`, :mod:`.icap`, :mod:`.milter`) that carries its octets over a
:mod:`.wire`.  :mod:`.guard` stands between a client and the pipeline: deadline, queue,
:mod:`.breaker`, health.  :mod:`.makers` are the plugins.
"""
