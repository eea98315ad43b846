"""Measure how fast this machine loads training images."""

TIERS = ("folder", "exact", "resized", "raw")
"""Storage of a folder's images: unpacked, and the three tiers of packs."""
