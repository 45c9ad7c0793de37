"""The field station: what is done with flights on the ground."""
