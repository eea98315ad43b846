"""Choices of the data path and the optimizer that no recipe key changes, and that sources may have made otherwise.

The code takes them from here, so that what is compared with a reference (fidelity/) is what is done. Imports no torch.
"""

from __future__ import annotations

ATTEMPTS = 10
"""Boxes drawn before the fallback, as in the papers' code."""

ANTIALIAS = True
"""Whether resizing takes all pixels of the source into account, as Pillow does, and not just those around a point."""

GRAY = (0.299, 0.587, 0.114)
"""Weights of R, G, B in gray (ITU-R BT.601)."""

LIGHTING_EIGENVALUES = (0.2175, 0.0188, 0.0045)
LIGHTING_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
"""Principal components of ImageNet's colours on a scale of 0 to 1, from fb.resnet.torch; rows are R, G, B."""

CLASSIFIER_BIAS = 0.0
"""Where the classifier's bias starts."""
