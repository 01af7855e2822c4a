"""HTTP clients of our services, used by the sdk and the worker."""
