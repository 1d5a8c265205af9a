"""Trainers that stock nnU-Net finds by name: one file per class, named like it (docs in the README)."""
