"""The spool: what was answered with 250 lives here until it is settled.

:mod:`.api` says what the spool promises and which values it takes and gives;
the other modules keep the promise.
"""
