"""nnunet-echo: Mamba and Vision-LSTM networks for cardiac ultrasound as a plugin of stock nnU-Net v2.

This module imports nothing, so that `import nnunet_echo` stays instant and cannot fail.
"""

__version__ = "0.1.0"
