"""The result proxy: takes a task's result from whoever was authorized to make it (iExec's result proxy API)."""
