"""How a worker starts enclaves: one module per kind of machine."""
