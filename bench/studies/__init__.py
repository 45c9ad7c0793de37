"""Studies: figures of the documentation that are measured on real imagery, each by one script that can be run again."""
