"""Delivery: takes what is due from the spool to the next hop, or says why not.

:mod:`.api` has the values between the scheduler and the transports.
"""
