"""What is inside protected data: schema, values, archive, and the reader that iApps use. Standard library only."""
