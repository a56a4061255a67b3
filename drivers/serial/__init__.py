"""Serial devices, one family a module."""
