"""The iApp generator: from a folder of Python code to a bundle that runs in an enclave."""
