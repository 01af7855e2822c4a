"""The command line: one file per noun over the SDK, rendering apart from logic."""
