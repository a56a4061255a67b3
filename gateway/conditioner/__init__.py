"""Records in, records out: rates and signal quality derived at the edge. Neither I/O nor a clock lives here."""

from gateway.conditioner.conditioner import Conditioner

__all__ = ["Conditioner"]
