"""What `tools/bench_signal.py` measures: records, detectors, noise, codecs and pictures. Development only."""
