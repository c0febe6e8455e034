"""Worlds: prompts, dynamics and the gold utility."""
