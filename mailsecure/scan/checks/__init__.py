"""The checks that come with mailsecure; each module has a maker (:mod:`..api`)."""
