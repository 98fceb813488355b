"""Finding what words are: named entities, for instance."""
