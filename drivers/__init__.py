"""Devices: pure Python standard library, no I/O, no clock, no event loop.

A driver is a frozen row (`contract.Driver`) and a parser (`contract.Session`): bytes in, records out.
Nothing here imports anything of the hub; the hub imports this.
"""
