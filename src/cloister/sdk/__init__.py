"""What users import: protect, grant, run, open."""
