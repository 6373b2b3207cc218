"""A result in the formats that other programs read: outlines, pyramids, tables of tiles.

One image, one file or folder, written from top to bottom in memory that its size does not change.
Knows no run and no archive; what is called what, and where it goes, is decided in ``jobs``.
"""
