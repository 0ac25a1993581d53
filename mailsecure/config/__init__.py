"""The ini file becomes a frozen, typed :class:`~.model.Config`, or a list of problems."""
