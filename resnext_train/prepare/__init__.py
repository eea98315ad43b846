"""Pack images from folders and archives, check them and unpack them."""

DEFAULT_SIZE, DEFAULT_QUALITY = 256, 92
"""Defaults of the lossy tiers: pixels of the short side, and JPEG quality."""
