"""A stand-in for bluetoothd on a private D-Bus daemon, so that an unmodified BlueZ client needs no radio."""
