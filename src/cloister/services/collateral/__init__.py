"""The collateral service: vendors' collateral, proven, never older than seen before, and there when the vendor is away."""
