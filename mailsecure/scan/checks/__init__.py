"""Our own checks.  Each is made by a maker, listed in ``twisted/plugins/mailsecure_checks.py``."""
