"""The tests; they mirror ``mailsecure/``.  ``tests/live`` needs real sockets and daemons.

Hypothesis measures how long an example takes, which on a machine that does other things
as well says nothing about the code: its deadline and its complaint of slowness are off.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
