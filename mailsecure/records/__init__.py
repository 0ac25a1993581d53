"""The history: every session, message, recipient, verdict and delivery attempt.

:mod:`.values` are the events that the other rooms tell, :mod:`.api` what they see of this
one.
"""
