"""From checkpoint to bundle, from label texts to label bank, from bundle to engines."""
