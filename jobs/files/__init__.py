"""Files of clients on disk: uploads, inputs and outputs of batches."""
