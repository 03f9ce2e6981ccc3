"""/v1/files and /v1/uploads, and bodies that are streamed to disk."""
