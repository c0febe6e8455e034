"""What `rlhf-jax` does, one file a command, each with `work(arguments)`.

train · study · report · data · bench
"""
