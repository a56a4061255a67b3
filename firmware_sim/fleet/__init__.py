"""A thousand hubs in one process: what a broker, a cluster and a receiver have to bear, measured."""
