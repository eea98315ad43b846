"""How fast this machine brings training images into the training process, and which GPUs that feeds."""

TIERS = ("folder", "exact", "resized", "raw")
"""Ways to keep the images of a folder: as they are, and packed in three ways."""
