"""Starts a whole local network (chain, contracts, services, one worker) and knows the public ones."""
