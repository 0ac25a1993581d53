"""Tests of mailsecure.proxyproto."""
