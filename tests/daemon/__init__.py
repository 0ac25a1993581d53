"""Tests of the process itself: one module for each of :mod:`mailsecure.daemon`."""
