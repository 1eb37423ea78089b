"""Sends runs to W&B, TensorBoard or trackio: copies of a run's folder, which can be made again at any time.

metrics.jsonl and result.json are the truth. A tracker gets the same rows, in a thread of its own, and whatever it
does the run goes on (sink). It starts by taking all rows that are there, so a resumed run has no row twice and
none is missing, and `python -m experiments sync` (syncing) is the same thing done later.
"""
