"""Lists of boxes and what is measured of them, in NumPy: overlap, matching, the loss of an image, average
precision.

Knows arrays. Must never know images, files or networks.
"""
