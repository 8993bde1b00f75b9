"""Whatever a person has as rows of texts: documents, lines, tables; one reader for all verbs."""
