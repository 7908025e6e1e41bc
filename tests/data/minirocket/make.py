"""Makes features.npz: what aeon's MiniRocket computes. aeon needs older libraries than we pin, so it runs in its own environment:

    python -m venv aeon && aeon/bin/pip install aeon==1.6.0 && aeon/bin/python tests/data/minirocket/make.py
"""

from pathlib import Path

import numpy as np
from aeon.transformations.collection.convolution_based import MiniRocket

draw = np.random.default_rng(0)
kept = {}
for name, channels, points in (("one", 1, 61), ("several", 4, 40)):
    series = np.cumsum(draw.normal(size=(6, channels, points)), axis=2).astype(np.float32)
    # fitted on one row: then aeon's quantiles hang on no chance, only its choice of channels does
    transform = MiniRocket(n_kernels=420, random_state=0).fit(series[:1])
    counts, channel_indices, dilations, per_dilation, biases = transform.parameters
    kept |= {
        f"{name}.series": series,
        f"{name}.features": transform.transform(series),
        f"{name}.channel_counts": counts,
        f"{name}.channels": channel_indices,
        f"{name}.dilations": dilations,
        f"{name}.per_dilation": per_dilation,
        f"{name}.biases": biases,
    }
np.savez_compressed(Path(__file__).with_name("features.npz"), **kept)
