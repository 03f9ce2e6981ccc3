"""Values of arguments: which kinds a schema allows, and how they stand as bare text."""
