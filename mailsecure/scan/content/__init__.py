"""Looking inside a message: MIME, files, archives, documents, links.

It all runs in a worker's process (:mod:`mailsecure.scan.jobs.mail`), imports no Twisted, and
reads what strangers made.  :mod:`.opening` puts it together; :mod:`.limits` says how much is
looked at.  What is above is :class:`~mailsecure.scan.faults.Unscannable`.
"""
