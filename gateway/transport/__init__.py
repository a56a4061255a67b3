"""Links to devices: Bluetooth LE through bleak, serial lines through pyserial. Bytes and arrival times, no records."""
