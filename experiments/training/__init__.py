"""One run: built from its configuration, trained, recorded, resumed, saved."""
