"""One package per API that clients speak: schema, routes, translation, answers."""
