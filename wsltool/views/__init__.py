"""Overlays, curves and galleries for people to look at."""
