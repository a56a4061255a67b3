"""What the bench of the journal measures: the journal, its peers, and what no store can do without."""
