"""Sequence layers. They see tokens (B, L, D) or channel-last maps (B, H, W, D) and know nothing of segmentation.

Only `nnunet_echo.layers.windows` turns feature maps into sequences and back.
"""
