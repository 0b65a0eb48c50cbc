"""Experiments: what was trained and compared, each in one script that can be run again."""
