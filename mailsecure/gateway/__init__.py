"""The gateway: what a session may do at connect, HELO, MAIL, RCPT and DATA.

Policy over :mod:`mailsecure.smtp` (the protocol), :mod:`mailsecure.spool` (where mail
is kept) and :mod:`mailsecure.delivery` (where it goes).  Pure: :mod:`.limits`,
:mod:`.relaying`, :mod:`.trace`.
"""
