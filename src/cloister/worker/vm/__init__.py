"""The measured virtual machine: how its image is made, started and measured. The agent's side is in ``enclave``."""
