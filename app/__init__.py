"""The service: loads checkpoints and answers over HTTP. Knows capabilities, never families.

Importing it sets one variable of the environment, which has to stand before PyTorch is imported.
"""

import os

# Without it MKL keeps the buffers of every thread that ever multiplied matrices, some 5 MB each, and no product of ours
# is faster for them.
os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
