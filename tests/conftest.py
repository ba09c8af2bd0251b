"""What every test shares. Test files are not a package: their names are unique, and helpers are fixtures."""

import os

# Before anything imports torch: bits depend on the number of threads, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A test that downloads is a test that fails on a compute node.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
