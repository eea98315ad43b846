"""Measure how fast this machine loads training images, and which GPUs that rate can feed."""

TIERS = ("folder", "exact", "resized", "raw")
"""Storage of a folder's images: unpacked, and the three tiers of packs."""
