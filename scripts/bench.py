"""The same as `rlhf-jax bench`."""

import sys

from rlhf_jax.__main__ import main

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]])
