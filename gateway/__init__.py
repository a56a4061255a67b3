"""The hub: everything with I/O. Imports `drivers`; never imports the simulator."""
