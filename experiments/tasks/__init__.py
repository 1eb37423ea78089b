"""Tasks: rows read (data), put into templates (template, prompts), sampled (sampling), batched (batches, task)."""
