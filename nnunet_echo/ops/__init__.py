"""Functions of tensors: scans, convolutions, norms and what keeps them precise. Nothing here knows of networks."""
