"""Cores of localization: arrays in, arrays out."""
