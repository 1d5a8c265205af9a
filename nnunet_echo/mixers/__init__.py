"""Sequence mixers. They see tokens (B, L, D) or channel-last maps (B, H, W, D) and know nothing of segmentation.

Only `nnunet_echo.mixers.tokens` turns feature maps into sequences and back.
"""
