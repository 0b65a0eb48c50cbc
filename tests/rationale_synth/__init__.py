"""Tests of the data factory."""
