"""The PROXY protocol: how a proxy tells the server behind it whose connection it carries.

:mod:`.values` has the words, :mod:`.text` version 1, :mod:`.binary` version 2,
:mod:`.reading` reads either from a stream, and :mod:`.sealing` is ours: a header that
proves which node of the cluster it comes from.  All of it is pure.
"""
