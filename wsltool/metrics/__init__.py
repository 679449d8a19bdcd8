"""Protocols: arrays in, numbers out."""
