"""Vision-LSTM, versions 1 and 2: the encoders, and the segmentation network around either."""
