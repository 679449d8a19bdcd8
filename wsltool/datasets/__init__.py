"""Other people's files, turned into plain records."""
