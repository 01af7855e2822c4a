"""Container images inside the enclave: proved by digest, unpacked without a container engine, run as a sandbox's root."""
