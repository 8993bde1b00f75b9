"""Files of texts of any size become shards of embeddings, and nothing is lost on the way."""
