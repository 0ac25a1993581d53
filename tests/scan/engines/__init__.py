"""Tests of :mod:`mailsecure.scan.engines`."""
