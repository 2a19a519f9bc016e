"""Reading pages: an engine that works out of its package, without a network, in processes of its own."""
