"""The service: loads checkpoints and answers over HTTP. Knows capabilities, never families."""

import os

# It has to stand before PyTorch is imported. Without it MKL keeps the buffers of every thread that ever multiplied
# matrices, some 5 MB each, and no product is faster for it.
os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
