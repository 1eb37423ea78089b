"""Shows runs while they run: the view of one on its terminal, and `python -m experiments watch` over several."""
