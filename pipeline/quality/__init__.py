"""How good an answer is, against truth and against a dense run: counts first, then numbers of them.

Numpy only. What is counted adds up over blocks and over images, so that memory grows with neither.
"""
