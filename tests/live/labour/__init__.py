"""A package of jobs for the tests of the pool of processes: they misbehave."""
