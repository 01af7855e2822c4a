"""The indexer: what happened on chain as entities, asked for in GraphQL as iExec's clients do (reference section 4)."""
