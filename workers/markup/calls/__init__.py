"""The formats of tool calls: one object per format reads it and writes its grammar."""
