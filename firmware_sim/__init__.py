"""The other end of the wire: simulated devices with their own encoders. Never imported by the hub."""
