"""Which way to the broker: the state of each link, the choice, what may go over it, and what to do when none answers."""
