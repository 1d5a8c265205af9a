"""A trained 2D model as one file, for machines that have no folder of nnUNet_results."""
