"""The same as `rlhf-jax train`."""

import sys

from rlhf_jax.__main__ import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
