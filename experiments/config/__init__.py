"""The configuration: composed, checked against one schema, and named by its hash. Imports no torch.

Nothing on the way to help or to an error imports torch or transformers, so both come in under a second.
"""
