"""Rate-distortion measurements of licodec and its peers, from real files."""
