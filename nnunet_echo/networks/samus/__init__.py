"""SAMUS, AutoSAMUS and SAMUS with temporal relations (TRA) and local attention (LIA).

What each file holds: `encoder` the image encoder, `adapters` what SAMUS puts into SAM's blocks, `prompts` the prompt
encoder, `decoder` the mask decoder, `prompt_generator` AutoSAMUS's, `temporal` modules of clips, `network` what nnU-Net
trains, `published` the networks as their authors' code builds them, `weights` files of weights.
"""
