"""AI Gateway's API: chats and documents that are queued, and the administration of models."""
