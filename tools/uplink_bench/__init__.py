"""What the bench of the uplink is made of."""
