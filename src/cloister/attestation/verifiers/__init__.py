"""One module per kind of evidence: it checks the signature chain and answers with plain claims."""
