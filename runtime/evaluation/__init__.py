"""Measuring engines and labels on held-out frames; never imported in flight."""
