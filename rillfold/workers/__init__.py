"""Worker processes: one shell around each, watched, measured, and started as a crew."""
