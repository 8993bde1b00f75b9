"""Files of any size as rows of texts and ids."""
