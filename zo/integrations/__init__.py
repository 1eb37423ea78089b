"""zo inside other libraries' trainers: the one part of zo that needs more than torch.

Nothing else in zo imports this package. A module names the packages it needs and how to install them.
"""
