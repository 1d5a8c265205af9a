"""What results look like: outlines of masks, pictures of frames, colours and words. Nothing here needs PyTorch.

style       colours of structures, styles of plots, short names of trainers
outlines    the outline of a mask as points and as an SVG path; which structures are drawn
pictures    a frame as a data URL, a frame with two segmentations as a figure
"""
