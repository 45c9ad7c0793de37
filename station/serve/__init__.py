"""The web page of a field station: live flights, search, review, upload, labels from choices, an offline map."""
