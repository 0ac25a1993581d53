"""The process itself: time, signals, privileges, the state directory, systemd, memory.

Called by ``tap`` and :mod:`mailsecure.life` only; knows nothing of mail.
"""
