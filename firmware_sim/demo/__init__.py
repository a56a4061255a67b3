"""The whole way on one machine: simulated devices, a broker, the hub, the receiver, and the proof at the end.

The hub and the receiver run as programs of their own, exactly as installed; nothing of them is imported here.
"""
