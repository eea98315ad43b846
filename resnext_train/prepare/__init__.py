"""From images in folders and archives to packs, and back."""
