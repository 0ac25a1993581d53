"""The control room: what a postmaster sees of the daemon, and what he can tell it.

Log lines (:mod:`.logfile`), the control socket (:mod:`.server`) and the command
``mailsecure`` that talks to it (:mod:`.command`), figures for Prometheus
(:mod:`.metrics`), and a Python prompt inside the daemon (:mod:`.manhole`).
"""
