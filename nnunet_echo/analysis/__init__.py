"""What a network is, apart from its scores: how far it sees, and what it costs."""
