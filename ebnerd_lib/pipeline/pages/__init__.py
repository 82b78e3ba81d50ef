"""What readers see: one HTML file a stage, an index a profile and one over all; they open offline and load nothing."""
