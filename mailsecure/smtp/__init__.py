"""The SMTP protocol (RFC 5321 and its extensions), without any policy.

Pure modules: :mod:`.envelope`, :mod:`.grammar`, :mod:`.replies`, :mod:`.framing`,
:mod:`.server` and :mod:`.client`.  The Twisted adapters around the two machines
are :mod:`.serving` and :mod:`.sending`.
"""
