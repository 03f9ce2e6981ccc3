"""OpenAI's Responses API: bodies to chats, a job's events to response objects and their streams."""
