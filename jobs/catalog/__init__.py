"""Models on disk: their names, formats and what their files say."""
