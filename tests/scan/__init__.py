"""Tests of :mod:`mailsecure.scan`."""
