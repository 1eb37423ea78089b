"""Tasks: rows are read (data, records), sampled, put into templates (prompts) and batched."""
