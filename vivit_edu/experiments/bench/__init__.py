"""Benches: what a part costs, measured next to something else in the same run."""
