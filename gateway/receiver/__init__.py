"""The cloud side: verifies, removes repeats, names gaps, writes out."""
