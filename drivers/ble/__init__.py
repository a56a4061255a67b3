"""Bluetooth LE devices, one family a module."""
