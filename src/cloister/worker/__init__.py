"""The host side of a task: lease it, launch an enclave for it, carry its frames, contribute its result."""
