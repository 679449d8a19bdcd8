"""The only room with zarr and h5py: schema, open, write, verify, lineage."""
