"""The scheduler of one workerpool owner: watches deals, leases their tasks to workers, keeps the chain's deadlines."""
