"""The WordNet tables of `taming_core.language`."""
