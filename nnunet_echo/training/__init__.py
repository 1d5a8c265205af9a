"""What the trainers inherit: an nnU-Net trainer for any of our networks, which a kill costs little."""
