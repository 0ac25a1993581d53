"""A cluster on a switch of its own: nodes in network namespaces, and a judge apart from them.

:mod:`.network` makes the namespaces and pulls the cables; :mod:`.switch` is the switch, a
program that loses, delays and doubles frames as it is told; :mod:`.judge` is the program
that watches from a third host who answers on an address and who owns it; :mod:`.record`
is what it saw.  :mod:`.nodes` runs the real daemon on the hosts, :mod:`.forger` sends what
no node would.  The scenarios are ``tests/live/test_cluster_*.py``.
"""
