"""Kernels on arrays: samples in, beats and rates out. No records, no I/O, no clock, nothing else of ours."""
