"""Tests of mailsecure.records."""
