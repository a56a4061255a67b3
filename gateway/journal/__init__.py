"""The encrypted segment log: everything the hub accepted and has not yet delivered, safe against power cuts."""
