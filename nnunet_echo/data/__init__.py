"""Raw datasets in nnU-Net's format: images, cines, splits by patient, writer and check."""
