"""One module per kind of hardware: it has report data signed and answers with evidence."""
