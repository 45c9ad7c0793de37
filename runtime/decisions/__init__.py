"""From scores to labels, from labels to events, from events to incidents."""
