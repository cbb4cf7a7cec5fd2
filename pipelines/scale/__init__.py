"""What the data stages take on many photos, measured here, and what they take on ten million, computed."""
