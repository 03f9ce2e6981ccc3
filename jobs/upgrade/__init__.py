"""Migration of data that earlier versions left in Redis."""
