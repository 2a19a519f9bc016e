"""What a conversation remembers between calls: histories by session, and the memory block in front of every prompt."""
