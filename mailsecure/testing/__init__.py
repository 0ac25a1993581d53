"""Our fakes, shipped and documented, for the tests of mailsecure and of what uses it."""
