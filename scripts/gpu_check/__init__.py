"""Prove the GPU path on this host, stage by stage: `python -m scripts.gpu_check` from the root of a checkout."""
