"""The market: orders published and found, deals listed, kept true to the chain by a watcher (reference 3.1)."""
