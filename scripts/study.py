"""The same as `rlhf-jax study`."""

import sys

from rlhf_jax.__main__ import main

if __name__ == "__main__":
    main(["study", *sys.argv[1:]])
