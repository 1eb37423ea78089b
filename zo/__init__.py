"""zo: fine-tune with forward passes only."""
