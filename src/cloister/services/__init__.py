"""The network's services: each runs alone or shares one process and one origin with the others."""
