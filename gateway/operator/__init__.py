"""The side of who asks: makes a command, waits for the answers. For `wardlink request` and for other programs."""
