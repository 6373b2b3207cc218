"""Training models of several passes on nested crops, in one process or data-parallel on Ray.

What is trained sees pixels, guidance and truth through the same sources, planes and resampling as
what is run.
"""
