"""The hub: everything with I/O. Imports `drivers`; never imports the simulator."""

__version__ = "0.1.0"
