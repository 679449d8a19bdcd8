"""One file per stage: reads a store, calls a core, writes a store."""
