"""Data sets that are made or read here: the phantom, moving shapes, video files."""
