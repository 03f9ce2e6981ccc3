"""OpenAI's completions and chats: their bodies to jobs, the jobs' events to answers. Pure."""
