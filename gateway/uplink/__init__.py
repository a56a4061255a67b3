"""From the journal to the broker: what is durable is sent, what is acknowledged moves the durable cursor."""
