"""A slow, obvious twin of each compiled kernel: whole arrays, plain Python, nothing shared but the constants."""
