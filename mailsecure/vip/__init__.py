"""The virtual address: leased from the kernel, announced to the neighbours."""
