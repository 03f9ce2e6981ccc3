"""Anthropic's Messages API: bodies to chats, a job's events to messages and their streams."""
