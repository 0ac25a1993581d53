"""See mailsecure.scan.jobs."""
