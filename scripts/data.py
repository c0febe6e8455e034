"""The same as `rlhf-jax data`."""

import sys

from rlhf_jax.__main__ import main

if __name__ == "__main__":
    main(["data", *sys.argv[1:]])
