"""From image files to batches: sources, decoding, crops, sampling, loading, and the colour step on the device."""
