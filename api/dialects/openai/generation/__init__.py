"""/v1/completions and /v1/chat/completions, and the forms that other dialects build on."""
